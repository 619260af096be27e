"""Pretraining on an emulated GPU: nothing stays on the CPU, and a step does not wait for the GPU."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import pretrain.run
from pretrain.methods import METHODS
from pretrain.step import training_step
from tests.emulated_gpu import emulated_gpu, waits
from tests.pretrain.conftest import tiny_config


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_nothing(method: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def step(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        before = len(waits)
        losses = training_step(*arguments, **options)
        waited.append(waits[before:])
        return losses

    monkeypatch.setattr(pretrain.run, "training_step", step)
    # Batch normalisation over two processes.
    monkeypatch.setattr("pretrain.heads.world_size", lambda: 2)
    monkeypatch.setattr("pretrain.heads.all_reduce", lambda values: 2 * values)
    train = {"device": "cuda", "precision": "float32", "batch_size": 4, "epochs": 1}
    options = {f"train__{name}": value for name, value in train.items()} | {"views__on_device": True, "optim__warmup_epochs": 0}
    config = tiny_config(method, image_folder, tmp_path, **options)
    with emulated_gpu():
        pretrain.run.pretrain(config)
        pretrain.run.pretrain(config)  # loads the checkpoint
    assert waited[1:] == [[]] * 2  # the first one may: for constants, which are made once
    assert not [place for place in waits if "colours.py" in place or "network_inputs" in place]
