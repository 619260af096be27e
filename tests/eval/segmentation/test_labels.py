"""Label maps are read as mmseg reads them; damaged ones are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from eval.openmmlab.images import ImageFileError
from eval.segmentation.labels import ReadLabels


def _results(path: Path, shape: tuple[int, int] = (4, 40)) -> dict[str, Any]:
    return {"seg_map_path": str(path), "ori_shape": shape, "reduce_zero_label": True, "label_map": None, "seg_fields": []}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.png"
    Image.fromarray(np.arange(160, dtype=np.uint8).reshape(4, 40).clip(0, 150)).save(path)
    return path


def test_zero_is_ignored_and_the_rest_moves_down(labels: Path) -> None:
    found = ReadLabels()(_results(labels))["gt_seg_map"].ravel()
    assert found[:4].tolist() == [255, 0, 1, 2]
    assert found[150] == 149
    np.testing.assert_array_equal(found, LoadAnnotations(reduce_zero_label=True)(_results(labels))["gt_seg_map"].ravel())


def test_damaged_and_foreign_label_maps_are_named(labels: Path) -> None:
    with pytest.raises(ImageFileError, match=r"labels\.png: label map of shape \(4, 40\) for an image of \(8, 8\)"):
        ReadLabels()(_results(labels, (8, 8)))
    Image.fromarray(np.full((4, 40), 151, np.uint8)).save(labels)
    with pytest.raises(ImageFileError, match=r"labels\.png: labels 151; ADE20K's are"):
        ReadLabels()(_results(labels))
    for content in (labels.read_bytes()[:45], b"", b"<html>"):
        labels.write_bytes(content)
        with pytest.raises(ImageFileError, match=r"labels\.png: not a readable label map"):
            ReadLabels()(_results(labels))
