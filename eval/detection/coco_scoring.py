"""The implementation of COCO's evaluation: faster-coco-eval where it is installed, else pycocotools, which it equals."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

try:
    import faster_coco_eval
except ImportError:
    faster_coco_eval = None

logger = logging.getLogger(__name__)
# It reports its figures as log lines, where pycocotools prints them.
logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """One way to evaluate."""

    name: str
    """Package."""
    ground_truth: type[Any]
    """Its COCO class."""
    evaluation: type[Any]
    """Its COCOeval class."""


PYCOCOTOOLS = Scoring(name="pycocotools", ground_truth=COCO, evaluation=COCOeval)
FASTER: Scoring | None = faster_coco_eval and Scoring(
    name="faster-coco-eval", ground_truth=faster_coco_eval.COCO, evaluation=faster_coco_eval.COCOeval_faster
)


def preferred_scoring() -> Scoring:
    """The faster implementation, or the reference with a message."""
    if FASTER is None:
        logger.warning(
            "faster-coco-eval is not installed; scoring with pycocotools gives the same figures, several times slower"
        )
        return PYCOCOTOOLS
    return FASTER


def precision_and_statistics(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    iou_type: str,
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    scoring: Scoring,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run COCO's evaluation.

    Args:
        truth: Ground truth; may list more images than were tested.
        results: Detections in COCO's result format, with what `iou_type` compares alone (box or segmentation).
        iou_type: `bbox` or `segm`.
        image_ids: The images that were tested.
        category_ids: The categories to average over.
        scoring: From `preferred_scoring`.

    Returns:
        Precision [T, R, K, A, M] (IoU thresholds, recalls, classes, areas, limits of detections per image; -1 where there is no
        ground truth) and the twelve statistics.
    """
    evaluation = evaluated(truth, results, iou_type, image_ids, category_ids, scoring)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.stats[:12])


def evaluated(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    iou_type: str,
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    scoring: Scoring,
    areas: Mapping[str, tuple[float, float]] | None = None,
) -> Any:
    """The first step of COCO's evaluation: every image's detections matched with its annotations.

    Args:
        truth: As for `precision_and_statistics`, and so the others.
        results: Detections.
        iou_type: `bbox` or `segm`.
        image_ids: The images that were tested.
        category_ids: The categories.
        scoring: Which implementation.
        areas: Name -> range of object areas in square pixels; by default COCO's four.

    Returns:
        The COCOeval object.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        known = truth if isinstance(truth, scoring.ground_truth) else _ground_truth(truth.dataset, scoring)
        # `loadRes` fails on an empty list.
        found = known.loadRes(list(results)) if results else _ground_truth({**truth.dataset, "annotations": []}, scoring)
        evaluation = scoring.evaluation(known, found, iou_type)
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.params.catIds = list(category_ids)
        if areas is not None:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(area) for area in areas.values()], list(areas)
        evaluation.evaluate()
    return evaluation


def _ground_truth(dataset: Mapping[str, Any], scoring: Scoring) -> Any:
    truth = scoring.ground_truth()
    truth.dataset = dict(dataset)
    truth.createIndex()
    return truth
