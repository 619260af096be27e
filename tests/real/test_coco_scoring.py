"""faster-coco-eval equals pycocotools on real annotations: crowds, many small objects, ties, classes without ground truth."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO

from eval.detection import coco_scoring
from eval.detection.coco_scoring import FASTER, PYCOCOTOOLS, preferred_scoring
from eval.detection.figures import compute_figures


@pytest.fixture(scope="module")
def truth(real_data_dir: Path) -> COCO:
    return COCO(str(real_data_dir / "coco/annotations/instances_val2017.json"))


def shaken_detections(truth: COCO, seed: int) -> list[dict[str, Any]]:
    """Some objects missed, some found twice, shifted, some of another class; scores of one decimal, so that many tie."""
    random = np.random.default_rng(seed)
    category_ids = truth.getCatIds()
    detections = []
    for annotation in truth.dataset["annotations"]:
        image = truth.imgs[annotation["image_id"]]
        outline = truth.annToMask(annotation)
        for _ in range(random.integers(0, 3)):
            shift = int(random.integers(0, 6))
            moved = np.asfortranarray(np.roll(outline, shift, axis=1))
            left, top, width, height = annotation["bbox"]
            other = random.random() < 0.1
            detections.append(
                {
                    "image_id": image["id"],
                    "category_id": int(random.choice(category_ids)) if other else annotation["category_id"],
                    "score": float(random.integers(1, 10)) / 10,
                    "bbox": [left + shift, top, width, height],
                    "segmentation": masks.encode(moved),
                }
            )
    return detections


@pytest.mark.parametrize("seed", [0, 1])
def test_both_implementations_give_the_same_figures(truth: COCO, seed: int) -> None:
    assert FASTER is not None, "faster-coco-eval is in requirements.txt"
    detections = shaken_detections(truth, seed)
    image_ids = sorted(truth.imgs)[seed:]
    figures = [
        compute_figures(truth, detections, image_ids, truth.getCatIds(), scoring=scoring) for scoring in (PYCOCOTOOLS, FASTER)
    ]
    slow, fast = figures
    assert 10 < slow["segm_mAP"] < 90
    assert list(slow) == list(fast)
    assert seed == 0 or any(math.isnan(value) for value in slow.values())  # the image left out has a class of its own
    for name, value in slow.items():
        assert fast[name] == pytest.approx(value, rel=0, abs=1e-9, nan_ok=True), name


def test_without_the_fast_package_the_reference_scores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert preferred_scoring() is FASTER
    monkeypatch.setattr(coco_scoring, "FASTER", None)
    assert preferred_scoring() is PYCOCOTOOLS
    assert "scoring with pycocotools gives the same figures" in caplog.text
