"""COCO's average precision of any multiset of the tested images, from the artefact `image_matches` of a detection result.

The definition is pycocotools': detections of a class by falling confidence, precision made monotone, read at 101 recalls, averaged
over IoU thresholds and over the classes that have annotations. An image that is drawn w times counts w times; its detections stay
next to each other in the ranking. `eval/detection/metric.py` describes the arrays of the file. Loads no torch.

Shapes: R resampled sets, N images, K classes, T IoU thresholds, D detections of a class, G its annotations, U detections that match
something, J recalls.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.result import Result, read_arrays

Array = NDArray[np.float64]

ARTEFACT = "image_matches"
IOU_TYPES = ("bbox", "segm")
# Ending of a metric's name -> the IoU thresholds (of 0.5, 0.55, ... 0.95) that it averages over.
AP_NAMES = {"mAP": slice(None), "mAP_50": slice(0, 1), "mAP_75": slice(5, 6)}
# The arrays of an IoU type in the artefact, without their prefix.
COLUMNS = ("image", "category", "score", "matched", "ignored", "truth_image", "truth_category")

_THRESHOLDS = 10
_RECALLS = np.linspace(0, 1, 101)
_VALUES_PER_STEP = 4_000_000  # bounds the memory of one step


class ClassMatches(NamedTuple):
    """One class's detections by falling confidence, and its annotations.

    A detection matches an annotation that counts, or is ignored: it matches one that does not count, and is left out.
    `truth_image_G` is the image of each annotation that counts.
    """

    image_D: NDArray[np.int64]
    matched_TD: NDArray[np.bool_]
    ignored_TD: NDArray[np.bool_]
    truth_image_G: NDArray[np.int64]


def read_items(
    result: Result, folder: Path
) -> tuple[tuple[str, ...], Mapping[str, Array], Callable[[Array], Mapping[str, Array]]] | None:
    """The names of the tested images, no means, and how the metrics follow from weights [R, N], how often each is in each set.

    None where the result, in this folder, has no such artefact.
    """
    file = result.artefacts.get(ARTEFACT)
    if file is None:
        return None
    arrays = read_arrays(folder / file)
    for iou_type in IOU_TYPES:
        _check_columns(arrays, iou_type, file)
    classes = {iou_type: read_classes(arrays, iou_type) for iou_type in IOU_TYPES}
    return tuple(str(name) for name in arrays["names"]), {}, partial(average_precision, classes)


def _check_columns(arrays: Mapping[str, NDArray[Any]], iou_type: str, file: str) -> None:
    """ValueError unless the columns of detections are equally long and hold what they should, and those of annotations too."""
    columns = {name: arrays[f"{iou_type}_{name}"] for name in COLUMNS}
    detections, annotations = ([columns[name].shape for name in part] for part in (COLUMNS[:5], COLUMNS[5:]))
    shapes = [[arrays["names"].shape], [arrays["categories"].shape], detections, annotations]
    if any(len(set(each)) > 1 or len(each[0]) != 1 for each in shapes):
        raise ValueError(f"{file}: the columns of {iou_type} differ in length")
    sizes = {"image": arrays["names"].size, "category": arrays["categories"].size}
    for name, values in columns.items():
        limit = sizes.get(name.removeprefix("truth_"), 1 << _THRESHOLDS)
        whole = values.dtype.kind in "iu" and values.min(initial=0) >= 0 and values.max(initial=0) < limit
        if len(values) and not (np.isfinite(values).all() if name == "score" and values.dtype.kind == "f" else whole):
            raise ValueError(f"{file}: {iou_type}_{name} holds values that are none")


def read_classes(arrays: Mapping[str, NDArray[Any]], iou_type: str) -> list[ClassMatches]:
    """The classes that have annotations, from the arrays of the artefact, for boxes (`bbox`) or masks (`segm`)."""
    image, category, score, matched, ignored, truth_image, truth_category = (arrays[f"{iou_type}_{name}"] for name in COLUMNS)
    classes = []
    for number in range(len(arrays["categories"])):
        of_class = np.flatnonzero(category == number)
        order = of_class[np.argsort(-score[of_class], kind="stable")]
        ignored_TD = _flags(ignored[order])
        matched_TD = _flags(matched[order]) & ~ignored_TD
        truth_image_G = truth_image[truth_category == number].astype(np.int64)
        if len(truth_image_G):
            classes.append(ClassMatches(image[order].astype(np.int64), matched_TD, ignored_TD, truth_image_G))
    return classes


def average_precision(classes: Mapping[str, list[ClassMatches]], weights_RN: Array) -> dict[str, Array]:
    """AP, AP50 and AP75 in percent [R], named `bbox_mAP` and so on, of `classes` by IoU type; NaN for a set without annotations."""
    metrics = {}
    for iou_type, of_type in classes.items():
        per_class_KRT = np.stack([_class_precision(one, weights_RN) for one in of_type])
        for ending, thresholds in AP_NAMES.items():
            chosen_KR = per_class_KRT[:, :, thresholds].mean(axis=2)
            defined_R = (~np.isnan(chosen_KR)).sum(axis=0)
            with np.errstate(invalid="ignore"):
                metrics[f"{iou_type}_{ending}"] = 100 * np.nansum(chosen_KR, axis=0) / defined_R
    return metrics


def _class_precision(one: ClassMatches, weights_RN: Array) -> Array:
    """Average precision [R, T] of a class, 0 to 1; NaN where a set has no annotation of it."""
    touched_U = np.flatnonzero(one.matched_TD.any(axis=0) | one.ignored_TD.any(axis=0))
    step = max(1, _VALUES_PER_STEP // max(1, len(one.image_D) + _THRESHOLDS * len(touched_U)))
    parts = [_precision(one, touched_U, weights_RN[start : start + step]) for start in range(0, len(weights_RN), step)]
    return np.concatenate(parts)


def _precision(one: ClassMatches, touched_U: NDArray[np.int64], weights_RN: Array) -> Array:
    annotations_R = weights_RN[:, one.truth_image_G].sum(axis=1)
    # How many matches reach each of the J = 101 recalls, by the comparison of floating-point numbers that pycocotools makes.
    at_least_one_R1 = np.maximum(annotations_R, 1)[:, None]
    needed_RJ = np.floor(at_least_one_R1 * _RECALLS)
    needed_RJ += needed_RJ / at_least_one_R1 < _RECALLS
    # Precision falls from one match to the next and is made monotone, so that only the matches need be looked at.
    weights_RD = weights_RN[:, one.image_D]
    seen_RU = np.cumsum(weights_RD, axis=1)[:, touched_U]
    weights_RU = weights_RD[:, touched_U]
    result_RT = np.empty((len(weights_RN), _THRESHOLDS))
    for threshold in range(_THRESHOLDS):
        true_RU = np.cumsum(weights_RU * one.matched_TD[threshold, touched_U], axis=1)
        counted_RU = seen_RU - np.cumsum(weights_RU * one.ignored_TD[threshold, touched_U], axis=1)
        precision_RU = true_RU / (counted_RU + np.spacing(1))
        result_RT[:, threshold] = _mean_at_recalls(true_RU, precision_RU, needed_RJ)
    result_RT[annotations_R == 0] = np.nan
    return result_RT


def _mean_at_recalls(true_RU: Array, precision_RU: Array, needed_RJ: Array) -> Array:
    """Mean [R] over the recalls of the highest precision from there on; zero beyond the last one that is reached."""
    rows, touched = true_RU.shape
    monotone_RU = np.maximum.accumulate(precision_RU[:, ::-1], axis=1)[:, ::-1]
    padded_RV = np.concatenate([monotone_RU, np.zeros((rows, 1))], axis=1)
    # All rows in one ascending list, each lifted above the one before.
    lift_R1 = (max(needed_RJ.max(), true_RU.max(initial=0)) + 1) * np.arange(rows)[:, None]
    places_RJ = np.searchsorted((true_RU + lift_R1).ravel(), (needed_RJ + lift_R1).ravel()).reshape(needed_RJ.shape)
    places_RJ = np.minimum(places_RJ - touched * np.arange(rows)[:, None], touched)
    means_R: Array = np.take_along_axis(padded_RV, places_RJ, axis=1).mean(axis=1)
    return means_R


def _flags(bits_D: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """[D] -> [T, D]; row t is bit t."""
    return (bits_D[None, :].astype(np.int64) >> np.arange(_THRESHOLDS)[:, None]) & 1 == 1
