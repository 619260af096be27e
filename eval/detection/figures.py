"""COCO's average precision in percent and full precision, over all classes and per class.

Shapes of pycocotools' precision array: T IoU thresholds, R recalls, K classes, A areas, M limits of detections per image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from eval.detection.coco_scoring import Scoring, precision_and_statistics, preferred_scoring

IOU_TYPES = ("bbox", "segm")
FIGURES = ("mAP", "mAP_50", "mAP_75")
"""The first three of pycocotools' twelve statistics."""

_CLASS_PREFIX = "class/"
_NO_VALUE = -1  # what pycocotools reports where there is no ground truth


def compute_figures(
    truth: COCO,
    detections: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    scoring: Scoring | None = None,
) -> dict[str, float]:
    """Score detections.

    Args:
        truth: Ground truth; may list more images than were tested.
        detections: In COCO's result format: image_id, category_id, score, bbox (left, top, width, height) and segmentation (RLE).
        image_ids: The images that were tested.
        category_ids: The categories to average over.
        scoring: Which implementation; by default `preferred_scoring`.

    Returns:
        `bbox_mAP`, `bbox_mAP_50`, `bbox_mAP_75` and the same for `segm`; then mAP per class, named `class/NAME/bbox_mAP`. NaN where
        there is no ground truth.
    """
    names = [category["name"] for category in truth.loadCats(list(category_ids))]
    overall: dict[str, float] = {}
    per_class: dict[str, float] = {}
    scoring = scoring or preferred_scoring()
    for iou_type in IOU_TYPES:
        results = compared_alone(detections, iou_type)
        precision_TRKAM, statistics = precision_and_statistics(truth, results, iou_type, image_ids, category_ids, scoring)
        for index, figure in enumerate(FIGURES):
            overall[f"{iou_type}_{figure}"] = _percent(statistics[index])
        precision_TRK = precision_TRKAM[:, :, :, 0, -1]
        for index, name in enumerate(names):
            per_class[f"{_CLASS_PREFIX}{name}/{iou_type}_mAP"] = _percent(_mean_where_defined(precision_TRK[:, :, index]))
    return {**overall, **per_class}


def compared_alone(detections: Sequence[Mapping[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    """Detections with the box or the mask alone: mask results carry no box, whose area would be taken for the mask's."""
    unused = "segmentation" if iou_type == "bbox" else "bbox"
    return [{key: value for key, value in detection.items() if key != unused} for detection in detections]


def split_figures(figures: Mapping[str, float]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Divide what `compute_figures` returns into the figures over all classes, and those per class by class name."""
    overall: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        if name.startswith(_CLASS_PREFIX):
            category, figure = name.removeprefix(_CLASS_PREFIX).rsplit("/", 1)
            per_class.setdefault(category, {})[figure] = value
        else:
            overall[name] = value
    return overall, per_class


def _mean_where_defined(precision: NDArray[np.float64]) -> float:
    defined = precision[precision > _NO_VALUE]
    return float(defined.mean()) if defined.size else _NO_VALUE


def _percent(value: float) -> float:
    return float("nan") if value == _NO_VALUE else 100.0 * float(value)
