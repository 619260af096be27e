"""Operators served from torchvision against compiled mmcv: exactly equal."""

from pathlib import Path
from typing import Any

import pytest
import torch

import eval.openmmlab.operators  # noqa: F401 - puts the operators in place

# isort: split
from mmcv.ops import batched_nms, nms, roi_align


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "mmcv_ops.pt", weights_only=True)


@pytest.mark.parametrize(("offset", "name"), [(0, "nms"), (1, "nms_off")])
def test_nms(golden: dict[str, Any], offset: int, name: str) -> None:
    _, kept = nms(golden["boxes"], golden["scores"], 0.5, offset=offset)
    assert torch.equal(kept, golden["outputs"][name])


@pytest.mark.parametrize(
    ("options", "name"),
    [({"iou_threshold": 0.5}, "bnms"), ({"iou_threshold": 0.7, "split_thr": 100}, "bnms_big")],
)
def test_batched_nms(golden: dict[str, Any], options: dict[str, Any], name: str) -> None:
    _, kept = batched_nms(golden["boxes"], golden["scores"], golden["ids"], {"type": "nms", **options})
    assert torch.equal(kept, golden["outputs"][name])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_and_its_gradient(golden: dict[str, Any], aligned: bool, sampling_ratio: int) -> None:
    wanted = golden["outputs"][f"ra{aligned}{sampling_ratio}"]
    features = golden["features"].clone().requires_grad_()
    pooled = roi_align(features, golden["rois"], wanted.shape[-1], 1 / 8, sampling_ratio, "avg", aligned)
    assert torch.equal(pooled, wanted)
    (pooled * torch.arange(wanted.shape[-1])).sum().backward()
    assert torch.equal(features.grad, golden["outputs"][f"rg{aligned}{sampling_ratio}"])
