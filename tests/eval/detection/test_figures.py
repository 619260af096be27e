import math
from typing import Any

import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO

from eval.detection.figures import compute_figures, split_figures

HEIGHT, WIDTH = 40, 60
PERSON, DOG = 1, 18


@pytest.fixture
def truth() -> COCO:
    """Two images with a person each; no dog anywhere."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH, "file_name": f"{image}.jpg"} for image in (1, 2)],
        "categories": [{"id": PERSON, "name": "person"}, {"id": DOG, "name": "dog"}],
        "annotations": [
            {
                "id": image,
                "image_id": image,
                "category_id": PERSON,
                "bbox": [10, 10, 20, 20],
                "area": 400,
                "iscrowd": 0,
                "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]],
            }
            for image in (1, 2)
        ],
    }
    coco.createIndex()
    return coco


def _detection(image: int, left: float = 10, score: float = 0.9, category: int = PERSON) -> dict[str, Any]:
    (outline,) = masks.frPyObjects([[left, 10, left + 20, 10, left + 20, 30, left, 30]], HEIGHT, WIDTH)
    return {"image_id": image, "category_id": category, "score": score, "bbox": [left, 10, 20, 20], "segmentation": outline}


def test_perfect_detections_score_100(truth: COCO) -> None:
    overall, per_class = split_figures(compute_figures(truth, [_detection(1), _detection(2)], [1, 2], [PERSON, DOG]))
    assert list(overall) == ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "segm_mAP", "segm_mAP_50", "segm_mAP_75"]
    assert all(value == pytest.approx(100) for value in overall.values())
    assert per_class["person"]["segm_mAP"] == pytest.approx(100)
    # A class without ground truth has no value; it is not a zero and does not lower the mean.
    assert math.isnan(per_class["dog"]["bbox_mAP"])


def test_no_detection_scores_zero(truth: COCO) -> None:
    overall, _ = split_figures(compute_figures(truth, [], [1, 2], [PERSON, DOG]))
    assert set(overall.values()) == {0.0}


def test_overlap_decides_which_thresholds_are_passed(truth: COCO) -> None:
    # Shifted by 4 of 20 pixels: IoU 16/24 = 0.667 passes 0.5, 0.55, 0.6 and 0.65 of the ten thresholds.
    overall, _ = split_figures(compute_figures(truth, [_detection(1, left=14), _detection(2, left=14)], [1, 2], [PERSON]))
    assert overall["bbox_mAP_50"] == pytest.approx(100)
    assert overall["bbox_mAP_75"] == 0
    assert overall["bbox_mAP"] == pytest.approx(40)
    assert overall["segm_mAP"] == pytest.approx(40)


def test_images_that_were_not_tested_do_not_count(truth: COCO) -> None:
    overall, _ = split_figures(compute_figures(truth, [_detection(1)], [1], [PERSON]))
    assert overall["bbox_mAP"] == pytest.approx(100)


def test_figures_are_not_rounded(truth: COCO) -> None:
    # One of two found: 51 of the 101 recall points have precision 1. mmdet would round to 0.505.
    overall, _ = split_figures(compute_figures(truth, [_detection(1)], [1, 2], [PERSON]))
    assert overall["bbox_mAP"] == pytest.approx(100 * 51 / 101, abs=1e-9)
