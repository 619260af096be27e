"""Items of a detection result against pycocotools on real annotations: crowds, small objects, ties, classes without ground truth."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO

from eval.detection.items import IOU_TYPES, average_precision, read_classes
from eval.detection.metric import score


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
def test_items_drawn_once_give_the_official_metrics(truth: COCO, seed: int) -> None:
    image_ids = sorted(truth.imgs)[seed:]
    metrics, per_class, arrays = score(truth, shaken_detections(truth, seed), image_ids, truth.getCatIds())
    assert 10 < metrics["segm_mAP"] < 90
    # The image left out has a class of its own.
    assert seed == 0 or any(math.isnan(values["bbox_mAP"]) for values in per_class.values())
    classes = {iou_type: read_classes(arrays, iou_type) for iou_type in IOU_TYPES}
    found = average_precision(classes, np.ones((1, len(image_ids))))
    assert {name: float(values_R[0]) for name, values_R in found.items()} == pytest.approx(
        {name: metrics[name] for name in found}, rel=0, abs=1e-9
    )
