"""Taps and pyramid against the authors' detection backbone, and operators served from torchvision against compiled mmcv."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import eval.openmmlab.operators  # noqa: F401 - puts the operators in place
from backbones.file import write_backbone_file
from backbones.layouts.architecture import vit_spec
from eval.openmmlab.backbone import BackboneFromFile
from tests.toy import SOURCE

# isort: split
from mmcv.ops import batched_nms, nms, roi_align

TOLERANCE = 2e-5
# The authors' name of each branch; identity and pooling have no weights.
BRANCHES = {"fpn1.": "branches.0.", "fpn2.": "branches.1."}


@pytest.fixture(scope="module")
def cases(golden_dir: Path) -> list[dict[str, Any]]:
    return torch.load(golden_dir / "detection_pyramid.pt", weights_only=True)


def _pyramid_state(case: dict[str, Any]) -> dict[str, Tensor]:
    state = {
        name.replace(theirs, ours, 1): value
        for theirs, ours in BRANCHES.items()
        for name, value in case["state_dict"].items()
        if name.startswith(theirs)
    }
    # The authors' pyramid keeps the only deconvolution of a branch in a Sequential.
    branch = 0 if case["patch_size"] == 8 else 1
    return {name.replace(f"branches.{branch}.0.", f"branches.{branch}."): value for name, value in state.items()}


@torch.no_grad()
def _found_and_wanted(case: dict[str, Any], folder: Path, **options: Any) -> list[tuple[Tensor, Tensor]]:
    weights = {name: value for name, value in case["state_dict"].items() if not name.startswith(tuple(BRANCHES))}
    write_backbone_file(folder / "golden.safetensors", vit_spec(weights, case["num_heads"]), SOURCE, weights)
    backbone = BackboneFromFile(str(folder / "golden.safetensors"), case["out_indices"], deconv_pyramid=True, **options)
    assert backbone.pyramid is not None
    backbone.pyramid.load_state_dict(_pyramid_state(case), strict=True)
    return list(zip(backbone.eval()(case["images"]), case["outputs"], strict=True))


def test_maps_equal_the_authors(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    assert cases
    for case in cases:
        for found, wanted in _found_and_wanted(case, tmp_path):
            torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def test_exact_size_interpolation_would_be_noticed(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    # Proves that the images exercise DINO's +0.1 rule: mmseg's rule gives other features.
    pairs = [pair for case in cases for pair in _found_and_wanted(case, tmp_path, position_resize="size")]
    assert max(float((found - wanted).abs().max()) for found, wanted in pairs) > 10 * TOLERANCE


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "mmcv_ops.pt", weights_only=True)


@pytest.mark.parametrize(("offset", "name"), [(0, "nms"), (1, "nms_off")])
def test_nms(golden: dict[str, Any], offset: int, name: str) -> None:
    _, kept = nms(golden["boxes"], golden["scores"], 0.5, offset=offset)
    assert torch.equal(kept, golden["outputs"][name])


@pytest.mark.parametrize(
    ("options", "name"), [({"iou_threshold": 0.5}, "bnms"), ({"iou_threshold": 0.7, "split_thr": 100}, "bnms_big")]
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
