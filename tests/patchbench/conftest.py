"""Data, a network in memory, and evaluations of it, small enough for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import patchbench
from tools.make_sample_data import SampleConfig, draw_samples

TASKS = ["davis", "classification"]
OPTIONS: dict[str, dict[str, Any]] = {
    "davis": {"jobs": 1, "device": "cpu"},
    "classification": {"neighbours": [2, 4], "resize": 64, "crop": 64, "workers": 0, "device": "cpu"},
}
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_samples(SampleConfig(output=folder, train_images=1, val_images=1, frames=4, photos=1, class_images=2))
    return folder


@pytest.fixture
def network() -> nn.Module:
    """A ViT of timm with a classifier and with heads that its weights do not show, in training mode."""
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=6, num_classes=5).train()


@pytest.fixture
def evaluate(data: Path, tmp_path: Path) -> Evaluate:
    given = {"data": data, "output": tmp_path / "run"}
    return lambda model, tasks=TASKS, **more: patchbench.evaluate(
        model, tasks, **{**given, "options": {task: OPTIONS.get(task, {}) for task in tasks}, **more}
    )


def figures(results: dict[str, Any]) -> Any:
    return {task: (result.metrics, result.breakdown) for task, result in results.items()}
