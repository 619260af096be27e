"""J and F of every object of one sequence, frame by frame, by the semi-supervised rules of DAVIS-2017.

Source: davisvideochallenge/davis2017-evaluation, `davis2017/evaluation.py` and `results.py`. The first frame is given and the last
was never scored. The objects are ids 1 to the highest of the first annotation, whether or not it has all of them; higher ids do not
count.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from eval.davis.bits import BinaryImage
from eval.davis.boundary import boundary_f, boundary_tolerance
from eval.davis.dataset import check_length
from eval.davis.masks import Mask, read_mask, single_object, without_void

logger = logging.getLogger(__name__)


class ScoringError(ValueError):
    """Predictions or annotations that cannot be scored; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class SequenceMeasures:
    """Per-frame figures of one sequence."""

    name: str
    """The sequence."""
    region: npt.NDArray[np.float64]
    """J [objects, scored frames], in [0, 1]."""
    boundary: npt.NDArray[np.float64]
    """F [objects, scored frames], in [0, 1]."""


def measure_sequence(annotations: Path, predictions: Path, one_object: bool = False) -> SequenceMeasures:
    """Compare the predictions of a sequence with its annotations.

    Args:
        annotations: Folder with a mask for every frame of the sequence.
        predictions: Folder with a mask of the same name and size for every frame but the first and the last, at least.
        one_object: Whether all objects count as one, as in DAVIS-2016.

    Raises:
        DavisDataError: If there are too few annotations.
        ScoringError: If a mask is missing, of another size, or has an id that the first annotation has not.
        MaskError: If a mask is damaged.
    """
    # OpenCV's own threads would fight with the processes of `--jobs`.
    cv2.setNumThreads(1)
    paths = sorted(annotations.glob("*.png"))
    check_length(annotations, len(paths))
    first = _read_annotation(paths[0], one_object)
    num_objects = int(first.max())
    if not num_objects:
        logger.warning("%s: the first annotation has no object; the sequence has no share in the score", annotations)
    if absent := sorted(set(range(1, num_objects)) - set(np.unique(first).tolist())):
        logger.warning(
            "%s: the first annotation has no object %s; scored all the same, as by the official evaluation: 1 where no mask has it",
            *(annotations, _listed(absent)),
        )
    scored = paths[1:-1]
    region, boundary = np.zeros((num_objects, len(scored))), np.zeros((num_objects, len(scored)))
    late: set[int] = set()
    for index, path in enumerate(scored):
        annotation = _read_annotation(path, one_object)
        prediction = _read_prediction(predictions / path.name, annotation.shape, num_objects, one_object)
        if int(annotation.max()) > num_objects:
            late.update(np.unique(annotation[annotation > num_objects]).tolist())
        for number in range(num_objects):
            region[number, index], boundary[number, index] = measure_object(annotation, prediction, number + 1)
    if late:
        logger.warning(
            "%s: object ids %s appear after the first frame; they are not scored", annotations, _listed(sorted(late))
        )
    return SequenceMeasures(name=annotations.name, region=region, boundary=boundary)


def measure_object(annotation: Mask, prediction: Mask, object_id: int) -> tuple[float, float]:
    """J and F of one object in one frame.

    Only the part of the frame around the object's two appearances is looked at; one pixel of margin keeps the contours as they are.

    Args:
        annotation: [H, W] ids.
        prediction: [H, W] ids.
        object_id: Which object.

    Returns:
        Intersection over union (1 if both are empty), and `boundary_f`.
    """
    wanted, found = annotation == object_id, prediction == object_id
    box = _common_box(wanted, found)
    if box is None:
        return 1.0, 1.0
    wanted, found = np.ascontiguousarray(wanted[box]), np.ascontiguousarray(found[box])
    intersection_over_union = np.count_nonzero(wanted & found) / np.count_nonzero(wanted | found)
    return intersection_over_union, boundary_f(wanted, found, boundary_tolerance(*annotation.shape))


def _common_box(first: BinaryImage, second: BinaryImage) -> tuple[slice, slice] | None:
    """Rows and columns that hold both masks and a pixel around them; None if both are empty."""
    boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in (first, second)]
    filled = [(x, y, x + width, y + height) for x, y, width, height in boxes if width]
    if not filled:
        return None
    left, top = (max(0, min(box[side] for box in filled) - 1) for side in (0, 1))
    right, bottom = (max(box[side] for box in filled) + 1 for side in (2, 3))
    return slice(top, bottom), slice(left, right)


def _read_annotation(path: Path, one_object: bool) -> Mask:
    ids = read_mask(path)
    return single_object(ids) if one_object else without_void(ids)


def _read_prediction(path: Path, shape: tuple[int, ...], num_objects: int, one_object: bool) -> Mask:
    if not path.is_file():
        raise ScoringError(f"{path}: no such prediction; every frame but the first and the last needs one")
    ids = read_mask(path)
    if ids.shape != shape:
        raise ScoringError(f"{path}: {ids.shape[1]} x {ids.shape[0]} pixels, but the annotation has {shape[1]} x {shape[0]}")
    if one_object:
        return single_object(ids)
    if (highest := int(ids.max())) > num_objects:
        raise ScoringError(f"{path}: object id {highest}, but the first annotation has {num_objects} objects")
    return ids


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
