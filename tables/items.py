"""What results hold of their single items, by benchmark: figures that can be computed again on any multiset of them.

| benchmark | item | where |
| --- | --- | --- |
| DAVIS | sequence, with its objects | the result's breakdown |
| COCO | image: which detections match | artefact `image_matches`, an .npz (`eval/detection/image_matches.py`) |
| ADE20K | image: pixels per class | artefact `image_pixels`, an .npz of `names` [N] and `counts` [N, 3, K] |
| classification | image: rank of the right class | artefact `predictions`, a CSV |

Shapes: R resampled sets, N items, K classes. Rows of `counts`: intersection, predicted, labelled pixels.
"""

import csv
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace as Items
from typing import Any

import numpy as np

from eval.result import Result
from tables.average_precision import IOU_TYPES, average_precision, read_classes
from tables.collect import Measurement
from tables.significance import Array

logger = logging.getLogger(__name__)

IMAGE_MATCHES = "image_matches"
IMAGE_PIXELS = "image_pixels"
PREDICTIONS = "predictions"

_RANK = " rank"
_TOPS = (1, 5)
_PERCENT = 100


def read_items_of(result: Result, folder: Path) -> Any:
    """The items behind a result."""
    from types import SimpleNamespace

    readers = {"davis": _davis, "detection": _detection, "segmentation": _segmentation, "classification": _classification}
    items = readers[result.task](SimpleNamespace(result=result, folder=folder))  # type: ignore[arg-type]
    return (items.names, items.figures) if items else None


def _davis(measurement: Measurement) -> Any:
    """The official figures are means over the objects of all sequences; a sequence is drawn with all its objects."""
    if not measurement.result.breakdown:
        return None
    objects: dict[str, list[tuple[float, float]]] = {}
    for name, figures in sorted(measurement.result.breakdown.items()):
        objects.setdefault(name.rpartition("_")[0], []).append((figures["J-Mean"], figures["F-Mean"]))
    names = sorted(objects)
    sums_N3 = np.array([(*np.sum(objects[name], axis=0), len(objects[name])) for name in names])

    def figures_of(weights_RN: Array) -> Mapping[str, Array]:
        region_R, boundary_R, objects_R = (weights_RN @ sums_N3).T
        j_R, f_R = region_R / objects_R, boundary_R / objects_R
        return {"J&F-Mean": (j_R + f_R) / 2, "J-Mean": j_R, "F-Mean": f_R}

    return Items(names=tuple(names), figures=figures_of)


def _detection(measurement: Measurement) -> Any:
    file = measurement.result.artefacts.get(IMAGE_MATCHES)
    if file is None:
        return None
    with np.load(measurement.folder / file, allow_pickle=False) as archive:
        arrays = dict(archive)
    classes = {iou_type: read_classes(arrays, iou_type) for iou_type in IOU_TYPES}
    names = tuple(str(name) for name in arrays["names"])
    return Items(names=names, figures=partial(average_precision, classes))


def _segmentation(measurement: Measurement) -> Any:
    file = measurement.result.artefacts.get(IMAGE_PIXELS)
    if file is None:
        return None
    with np.load(measurement.folder / file, allow_pickle=False) as archive:
        names, counts_N3K = [str(name) for name in archive["names"]], archive["counts"].astype(np.float64)
    if counts_N3K.ndim != 3 or counts_N3K.shape[:2] != (len(names), 3):
        raise ValueError(f"{file}: counts of shape {counts_N3K.shape} for {len(names)} images")
    return Items(names=tuple(names), figures=partial(segmentation_figures, counts_N3K))


def segmentation_figures(counts_N3K: Array, weights_RN: Array) -> Mapping[str, Array]:
    """mIoU, aAcc and mAcc in percent of sets of images, each from the sum of its images' pixel counts.

    A class that is neither labelled nor predicted in a set leaves its mIoU, one that is not labelled its mAcc.
    """
    sums_R3K = (weights_RN @ counts_N3K.reshape(len(counts_N3K), -1)).reshape(len(weights_RN), 3, -1)
    intersection_RK, predicted_RK, labelled_RK = sums_R3K.transpose(1, 0, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou_RK = intersection_RK / (predicted_RK + labelled_RK - intersection_RK)
        # A predicted class that is labelled nowhere: 0 correct of 0 labelled is no value, whatever it intersects.
        accuracy_RK = np.where(labelled_RK > 0, intersection_RK / labelled_RK, np.nan)
        overall_R = intersection_RK.sum(axis=1) / labelled_RK.sum(axis=1)
    return {
        "mIoU": _PERCENT * _mean_of_defined(iou_RK),
        "aAcc": _PERCENT * overall_R,
        "mAcc": _PERCENT * _mean_of_defined(accuracy_RK),
    }


def _mean_of_defined(values_RK: Array) -> Array:
    """Mean [R] over what is not NaN; NaN where nothing is."""
    defined_R = (~np.isnan(values_RK)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        means_R: Array = np.nansum(values_RK, axis=1) / defined_R
    return means_R


def _classification(measurement: Measurement) -> Any:
    file = measurement.result.artefacts.get(PREDICTIONS)
    if file is None:
        return None
    with (measurement.folder / file).open(encoding="utf-8", newline="") as stream:
        header, *lines = list(csv.reader(stream, strict=True))
    lines.sort(key=lambda line: line[header.index("image")])
    names = [line[header.index("image")] for line in lines]
    columns = {name.removesuffix(_RANK): place for place, name in enumerate(header) if name.endswith(_RANK)}
    ranks = {name: np.array([int(line[place]) for line in lines]) for name, place in columns.items()}
    metrics = [f"{name} top-{top}" for name in ranks for top in _TOPS]
    right_NM = np.stack([_PERCENT * (ranks[name] < top) for name in ranks for top in _TOPS], axis=1).astype(np.float64)

    def figures_of(weights_RN: Array) -> Mapping[str, Array]:
        return dict(zip(metrics, (weights_RN @ right_NM).T / weights_RN.sum(axis=1), strict=True))

    return Items(names=tuple(names), figures=figures_of)
