"""The train loop whose iterations are updates, in mmengine's own runner; checkpoints and statistics."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.plots import read_log
from eval.openmmlab.runner import LOG_FILE, FineTuningRunner, JsonConfig, PreciseBatchNormHook, list_checkpoints

IMAGES, UPDATES, BATCH = 12, 5, 4


class _Numbers(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": torch.full((3,), float(index)), "data_samples": torch.tensor(index / 3)}


@MODELS.register_module()
class _Line(BaseModel):
    """Least squares: the loss is a mean over images, as in segmentation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: list[Tensor], data_samples: list[Tensor], mode: str) -> dict[str, Tensor]:
        assert mode == "loss"
        return {"loss": (self.layer(torch.stack(inputs)).squeeze(1) - torch.stack(data_samples)).square().mean()}


def _train(
    work_dir: Path, accumulation: int, updates: int = UPDATES, resume: bool = False
) -> tuple[list[dict[str, float]], Tensor]:
    """The log of every update in this folder, and the weights after the last one."""
    how = {"sampler": {"type": "InfiniteSampler", "shuffle": True, "seed": 0}, "collate_fn": {"type": "pseudo_collate"}}
    runner = FineTuningRunner(
        model={"type": "_Line"},
        work_dir=str(work_dir),
        train_dataloader={"dataset": _Numbers(), "batch_size": BATCH, "num_workers": 0, **how},
        train_cfg={"type": "AccumulatingIterLoop", "max_iters": updates},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-3}, "accumulative_counts": accumulation},
        param_scheduler=[{"type": "PolyLR", "power": 1.0, "end": UPDATES + 1, "by_epoch": False}],
        custom_hooks=[{"type": "PlainCheckpointHook"}, {"type": "ProgressHook"}],
        default_hooks={"logger": None, "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}},
        log_level="ERROR",
        resume=resume,
        experiment_name=f"{work_dir.name}_{updates}",
        cfg=Config({"device": "cpu"}),
    )
    weight = runner.train().layer.weight
    return read_log(work_dir / LOG_FILE)[0], weight.detach()


@pytest.mark.parametrize("accumulation", [2, 4])
def test_updates_do_not_depend_on_the_number_of_parts(tmp_path: Path, accumulation: int) -> None:
    whole, whole_weight = _train(tmp_path / "whole", 1)
    parts, parts_weight = _train(tmp_path / "parts", accumulation)
    assert [line["iteration"] for line in parts] == list(range(1, UPDATES + 1))
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], rel=1e-5)
    assert [line["lr"] for line in parts] == [line["lr"] for line in whole]
    assert whole[0]["lr"] == 1e-3  # that of the update, not the next one's
    torch.testing.assert_close(parts_weight, whole_weight, rtol=1e-5, atol=1e-7)


def test_a_resumed_run_does_not_cut_an_update_in_two(tmp_path: Path) -> None:
    log, wanted = _train(tmp_path / "once", 2)
    _train(tmp_path / "twice", 2, updates=3)
    resumed, weight = _train(tmp_path / "twice", 2, resume=True)
    assert resumed == log
    torch.testing.assert_close(weight, wanted, rtol=0, atol=0)


class _Normalised(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.BatchNorm1d(3, momentum=0.3)

    def forward(self, inputs: list[Tensor], data_samples: list[Tensor], mode: str) -> dict[str, Tensor]:
        assert mode == "loss"
        return {"loss": self.layer(torch.stack(inputs)).sum()}


def test_statistics_are_the_mean_over_the_parts_of_batches_after_the_last_update() -> None:
    model = _Normalised()
    model([torch.tensor([100.0, 0, 0]), torch.zeros(3)], [], "loss")  # what training left behind
    left = model.layer.running_mean.clone()
    batches_3B3 = torch.randn(3, BATCH, 3) * torch.tensor([1.0, 2, 5])[:, None, None] + 4
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1), accumulative_counts=2)
    loop = SimpleNamespace(
        dataloader_iterator=iter([{"inputs": list(batch), "data_samples": list(batch)} for batch in batches_3B3])
    )
    runner: Any = SimpleNamespace(iter=3, max_iters=UPDATES, model=model, optim_wrapper=wrapper, train_loop=loop)
    PreciseBatchNormHook(2).after_train_iter(runner)
    assert torch.equal(model.layer.running_mean, left)
    runner.iter = UPDATES - 1
    PreciseBatchNormHook(2).after_train_iter(runner)
    parts_P23 = batches_3B3[:2].reshape(4, 2, 3)
    torch.testing.assert_close(model.layer.running_mean, parts_P23.mean(dim=1).mean(dim=0))
    torch.testing.assert_close(model.layer.running_var, parts_P23.var(dim=1).mean(dim=0))
    assert model.layer.momentum == 0.3
    assert model.layer.weight.grad is None
    assert len(list(loop.dataloader_iterator)) == 1


def test_what_a_kill_while_writing_leaves_behind_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("iter_9.pth", "iter_10.pth", ".iter_11.123.tmp.pth", "iter_12.pth"):
        torch.save({}, tmp_path / name)
    cut_off = tmp_path / "iter_12.pth"
    cut_off.write_bytes(cut_off.read_bytes()[:-9])
    assert list_checkpoints(tmp_path) == {9: tmp_path / "iter_9.pth", 10: tmp_path / "iter_10.pth"}


def test_config_text_is_json_that_mmengine_reads_back(tmp_path: Path) -> None:
    config = JsonConfig({"model": {"type": "X", "taps": [1, 2]}})
    (tmp_path / "config.json").write_text(config.pretty_text, encoding="utf-8")
    assert JsonConfig.fromfile(tmp_path / "config.json").to_dict() == config.to_dict()
