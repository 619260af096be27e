"""A step with numbers that are not finite: the run ends there, names the batch, and keeps the checkpoint from before."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.distributed import rank
from pretrain.__main__ import main
from pretrain.config import TrainConfig
from pretrain.data.loader import GlobalBatchSampler
from pretrain.data.sources import images_of_folder
from tests.conftest import RunMain
from tests.pretrain.conftest import after_step, tiny_run
from tests.processes import run_as_command, run_group

POISONED = 5  # the step; three make an epoch


def images_of_step(folder: Path, step: int) -> list[str]:
    source, sampler = images_of_folder(folder), GlobalBatchSampler(12, TrainConfig(batch_size=4), 0, 1)
    return [source.describe(index) for index in sampler.global_batch(step - 1)]


@pytest.mark.parametrize(
    ("every", "kept", "what"),
    [
        (0, 3, "the loss became nan at step 5 (epoch 1)"),
        (1, 4, "left weights that are not finite at step 5 (epoch 1)"),
        (100, 0, "no checkpoint was written yet"),
    ],
)
def test_the_run_ends_and_names_the_batch(
    image_folder: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch, every: int, kept: int, what: str
) -> None:
    """Not only at a step that is logged; checkpoints come at every so many steps, and the one of the step `kept` stays."""
    of_weights = "weights" in what

    @torch.no_grad()
    def poison(student: nn.Module, losses: dict[str, Tensor]) -> None:
        if of_weights:
            next(student.parameters()).fill_(float("inf"))
        else:
            losses["loss"] = torch.tensor(float("nan"))

    options = tiny_run(image_folder, tmp_path, "dino", train__checkpoint_every=every, train__log_every=100)
    after_step(monkeypatch, POISONED, poison)
    finished = run_main(main, options)
    assert finished.status == 2
    message = finished.stderr.splitlines()[-1]
    assert what in message
    batch = json.loads((tmp_path / "nonfinite_batch.json").read_text())
    assert (batch["step"], batch["epoch"]) == (POISONED, 1)
    assert batch["images"] == [images_of_step(image_folder, POISONED)]
    assert str(tmp_path / "nonfinite_batch.json") in message
    assert batch["images"][0][0] in message
    assert (batch["losses"] != ["nan"]) == of_weights
    assert (tmp_path / "checkpoint.pth").exists() == bool(kept)
    if kept:
        content = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
        assert content["step"] == kept
        assert all(torch.isfinite(value).all() for value in content["student"].values())


def train_with_one_infinite_loss(options: list[str]) -> None:
    after_step(pytest.MonkeyPatch(), 2, lambda _, losses: losses.update({"loss": torch.tensor(math.inf)} if rank() else {}))
    run_as_command(main, options)


def test_all_processes_end_together(image_folder: Path, tmp_path: Path) -> None:
    """Also where only one of them saw it; its share of the batch is told apart."""
    output = tmp_path / "run"
    options = tiny_run(image_folder, output, "dino", train__checkpoint_every=1, train__log_every=100)
    ended, messages = run_group(2, tmp_path, train_with_one_infinite_loss, options)
    assert ended == [2, 2], messages
    assert messages.count("error: the loss became inf at step 2") == 2
    assert "Traceback" not in messages
    batch = json.loads((output / "nonfinite_batch.json").read_text())
    assert batch["losses"][1] == "inf"
    assert math.isfinite(float(batch["losses"][0]))
    whole = images_of_step(image_folder, 2)
    assert batch["images"] == [whole[0::2], whole[1::2]]
    assert torch.load(output / "checkpoint.pth", weights_only=True)["step"] == 1
