"""Geometric correspondences against those of the PW-Self authors' code."""

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain.data.views import CropBox
from pretrain.objectives.patch_matching import matching_patches


def box(crop: dict[str, Any]) -> CropBox:
    return CropBox(crop["top"], crop["left"], crop["height"], crop["width"], crop["flip"])


def test_matches(golden_dir: Path) -> None:
    path = golden_dir / "patch_matching.json"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    cases = json.loads(path.read_text())
    assert cases
    for index, case in enumerate(cases):
        first, second = case["crop1"], case["crop2"]
        grids = [(crop["grid"], crop["grid"]) for crop in (first, second)]
        assert matching_patches(box(first), box(second), *grids).tolist() == case["pairs"], index
