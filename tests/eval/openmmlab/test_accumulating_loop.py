"""The train loop whose iterations are updates, in mmengine's own runner."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

import eval.openmmlab.accumulation  # noqa: F401 - registers the loop
from eval.openmmlab.runner import FineTuningRunner

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


class _Recorder(Hook):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append(float(outputs["loss"]))
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])


def _train(work_dir: Path, accumulation: int, updates: int = UPDATES, resume: bool = False) -> tuple[_Recorder, Tensor]:
    runner = FineTuningRunner(
        model={"type": "_Line"},
        work_dir=str(work_dir),
        train_dataloader={
            "batch_size": BATCH,
            "num_workers": 0,
            "sampler": {"type": "InfiniteSampler", "shuffle": True, "seed": 0},
            "dataset": _Numbers(),
            "collate_fn": {"type": "pseudo_collate"},
        },
        train_cfg={"type": "AccumulatingIterLoop", "max_iters": updates},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-3}, "accumulative_counts": accumulation},
        param_scheduler=[{"type": "PolyLR", "power": 1.0, "end": UPDATES + 1, "by_epoch": False}],
        custom_hooks=[{"type": "PlainCheckpointHook"}],
        default_hooks={"logger": None, "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}},
        log_level="ERROR",
        resume=resume,
        experiment_name=f"{work_dir.name}_{updates}",
        cfg=Config({"device": "cpu"}),
    )
    recorder = _Recorder()
    runner.register_hook(recorder, priority="VERY_LOW")
    model = runner.train()
    return recorder, model.layer.weight.detach().cpu().clone()


@pytest.mark.parametrize("accumulation", [2, 4])
def test_updates_do_not_depend_on_the_number_of_parts(tmp_path: Path, accumulation: int) -> None:
    whole, whole_weight = _train(tmp_path / "whole", 1)
    parts, parts_weight = _train(tmp_path / "parts", accumulation)
    assert len(parts.losses) == UPDATES
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    assert parts.rates == whole.rates
    torch.testing.assert_close(parts_weight, whole_weight, rtol=1e-5, atol=1e-7)


def test_a_resumed_run_does_not_cut_an_update_in_two(tmp_path: Path) -> None:
    _, wanted = _train(tmp_path / "once", 2)
    _train(tmp_path / "twice", 2, updates=3)
    resumed, weight = _train(tmp_path / "twice", 2, resume=True)
    assert len(resumed.losses) == UPDATES - 3
    torch.testing.assert_close(weight, wanted, rtol=0, atol=0)
