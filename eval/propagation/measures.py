"""J and F of every object of one sequence, frame by frame, by the semi-supervised rules of DAVIS-2017.

Source: davisvideochallenge/davis2017-evaluation, `davis2017/evaluation.py`, `results.py` and `metrics.py`; the definition of
contours goes back to `seg2bmap` of the Berkeley segmentation benchmark. The first frame is given and the last was never scored. The
objects are ids 1 to the highest of the first annotation, whether or not it has all of them; higher ids do not count.

Where objects may begin later, as in YouTube-VOS and MOSE, each counts in all frames after that in which it begins, the last included.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from common.launch import usable_cores
from eval.findings import first_few
from eval.image_checks import in_processes, list_images
from eval.propagation.masks import Mask, read_mask, single_object, without_void

logger = logging.getLogger(__name__)

BinaryImage = npt.NDArray[np.bool_]  # [H, W].

METRICS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")  # in the official order
LOWER_IS_BETTER = ("J-Decay", "F-Decay")
_RECALL_THRESHOLD = 0.5
_DECAY_BINS = 4

FEWEST_FRAMES = 3  # a sequence of fewer cannot be scored: neither its first frame counts nor its last
SKIPPED_IDS = "the official evaluation counts a skipped id as an object that is found wherever no mask has it"

# The tolerance of contours is this share of the image diagonal, rounded up to whole pixels: 8 at 854 x 480.
TOLERANCE_OF_DIAGONAL = 0.008


class SequenceMeasures(NamedTuple):
    """J and F of one sequence, each [objects, scored frames], in [0, 1]; NaN in frames that do not count for an object.

    The objects are those of `ids`, or 1, 2, ... where there are none.
    """

    name: str
    region: npt.NDArray[np.float64]
    boundary: npt.NDArray[np.float64]
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions, as the official evaluation has them.

    `per_object` has the metrics of each object over its frames by `SEQUENCE_ID`, `overall` each of `METRICS` as its mean over them.
    """

    overall: dict[str, float]
    per_object: dict[str, dict[str, float]]


def score_sequences(
    names: Sequence[str],
    annotations: Path,
    predictions: Path,
    one_object: bool = False,
    jobs: int = 1,
    objects_begin_later: bool = False,
) -> Scores:
    """Score sequences, in several processes where there are several jobs (0: one per core); their order does not matter.

    `annotations` and `predictions` have one folder of masks per sequence; with `one_object`, all objects count as one (DAVIS-2016).
    """
    for folder in (annotations, predictions):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        if missing := [name for name in names if not (folder / name).is_dir()]:
            raise ValueError(f"{folder / missing[0]}: no such folder ({len(missing)} of {len(names)} sequences are missing)")
    folders = [[folder / name for name in names] for folder in (annotations, predictions)]
    workers = min(jobs or usable_cores(), len(names))
    if objects_begin_later:
        return summarise(list(in_processes(workers, measure_from_beginnings, *folders)))
    return summarise(list(in_processes(workers, measure_sequence, *folders, repeat(one_object))))


def summarise(sequences: Sequence[SequenceMeasures]) -> Scores:
    """Mean, recall and decay of each object, and their means over the objects; ValueError if there is none."""
    per_object = {}
    for sequence in sequences:
        ids = sequence.ids or range(1, len(sequence.region) + 1)
        for number, region, boundary in zip(ids, sequence.region, sequence.boundary, strict=True):
            counted = ~np.isnan(region)
            j, f = frame_statistics(region[counted]), frame_statistics(boundary[counted])
            per_object[f"{sequence.name}_{number}"] = dict(zip(METRICS, ((j[0] + f[0]) / 2, *j, *f), strict=True))
    if not per_object:
        raise ValueError("no sequence has an object in its first annotation; there is nothing to score")
    overall = {name: float(np.mean([metrics[name] for metrics in per_object.values()])) for name in METRICS[1:]}
    return Scores(overall={"J&F-Mean": (overall["J-Mean"] + overall["F-Mean"]) / 2, **overall}, per_object=per_object)


def frame_statistics(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, recall (share above 0.5) and decay (mean of the first quarter minus that of the last) of one object over its frames.

    Neighbouring quarters share their border frame. The official code keeps their positions in 8 bits, which wrap in sequences of more
    than 256 frames; DAVIS has none, and here they do not wrap.
    """
    borders = (np.round(np.linspace(1, len(values), _DECAY_BINS + 1) + 1e-10) - 1).astype(int)
    first, last = values[borders[0] : borders[1] + 1], values[borders[-2] : borders[-1] + 1]
    return float(np.mean(values)), float(np.mean(values > _RECALL_THRESHOLD)), float(np.mean(first) - np.mean(last))


def measure_sequence(annotations: Path, predictions: Path, one_object: bool = False) -> SequenceMeasures:
    """Compare the predictions of a sequence with its annotations.

    `annotations` is the folder with a mask for every frame of the sequence, `predictions` that with a mask of the same name and size
    for every frame but the first and the last, at least. With `one_object`, all objects count as one, as in DAVIS-2016.
    """
    # OpenCV's own threads would fight with the processes of `--jobs`.
    cv2.setNumThreads(1)
    paths = list(list_images(annotations, ".png", annotations)[0].values())
    predicted, _ = list_images(predictions, ".png", predictions)
    if len(paths) < FEWEST_FRAMES:
        raise ValueError(
            f"{annotations}: {len(paths)} annotated frames; the first and the last are not scored, so at least {FEWEST_FRAMES}"
        )
    as_scored = single_object if one_object else without_void
    first = as_scored(read_mask(paths[0]))
    num_objects = int(first.max())
    if not num_objects:
        logger.warning("%s: the first annotation has no object; the sequence has no share in the score", annotations)
    if absent := sorted(set(range(1, num_objects)) - set(np.unique(first).tolist())):
        logger.warning("%s: no object %s; %s", paths[0], first_few(map(str, absent), 5), SKIPPED_IDS)
    scored = paths[1:-1]
    region, boundary = np.zeros((num_objects, len(scored))), np.zeros((num_objects, len(scored)))
    late: set[int] = set()
    for index, path in enumerate(scored):
        annotation = as_scored(read_mask(path))
        prediction_path = predicted.get(path.stem, predictions / f"{path.stem}.png")
        prediction = _read_prediction(prediction_path, annotation.shape, num_objects, one_object)
        if int(annotation.max()) > num_objects:
            late.update(np.unique(annotation[annotation > num_objects]).tolist())
        for number in range(num_objects):
            region[number, index], boundary[number, index] = measure_object(annotation, prediction, number + 1)
    if late:
        numbers = ", ".join(map(str, sorted(late)))
        logger.warning("%s: object ids %s appear after the first frame; they are not scored", annotations, numbers)
    return SequenceMeasures(name=annotations.name, region=region, boundary=boundary)


def measure_from_beginnings(annotations: Path, predictions: Path) -> SequenceMeasures:
    """As `measure_sequence`, of every object that any annotation shows, in the frames after the first that shows it."""
    cv2.setNumThreads(1)
    paths = list(list_images(annotations, ".png", annotations)[0].values())
    predicted, _ = list_images(predictions, ".png", predictions)
    begins: dict[int, int] = {}
    for index, path in enumerate(paths):
        for number in np.unique(without_void(read_mask(path))).tolist():
            begins.setdefault(number, index)
    begins.pop(0, None)
    ids = tuple(sorted(number for number, first in begins.items() if first + 1 < len(paths)))
    region, boundary = (np.full((len(ids), len(paths)), np.nan) for _ in range(2))
    for index, path in enumerate(paths[1:], start=1):
        annotation = without_void(read_mask(path))
        prediction_path = predicted.get(path.stem, predictions / f"{path.stem}.png")
        prediction = _read_prediction(prediction_path, annotation.shape, max(begins, default=0), one_object=False)
        for row, number in enumerate(ids):
            if begins[number] < index:
                region[row, index], boundary[row, index] = measure_object(annotation, prediction, number)
    return SequenceMeasures(name=annotations.name, region=region, boundary=boundary, ids=ids)


def measure_object(annotation: Mask, prediction: Mask, object_id: int) -> tuple[float, float]:
    """J and F of one object in one frame; J is the intersection over union, 1 if both are empty."""
    wanted, found = annotation == object_id, prediction == object_id
    # Only the part of the frame around both is looked at; one pixel of margin keeps the contours as they are.
    x, y, width, height = cv2.boundingRect((wanted | found).view(np.uint8))
    if not width:
        return 1.0, 1.0
    box = slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1)
    wanted, found = np.ascontiguousarray(wanted[box]), np.ascontiguousarray(found[box])
    intersection_over_union = np.count_nonzero(wanted & found) / np.count_nonzero(wanted | found)
    return intersection_over_union, boundary_f(wanted, found, boundary_tolerance(*annotation.shape))


def boundary_tolerance(height: int, width: int) -> int:
    """Largest distance in pixels at which contours of an image of this size still agree."""
    return math.ceil(TOLERANCE_OF_DIAGONAL * float(np.linalg.norm((height, width))))


def boundary_f(annotation: BinaryImage, prediction: BinaryImage, tolerance: int) -> float:
    """Harmonic mean of the shares of either contour that lie within the tolerance of the other.

    It is 1 if there is no contour at all, 0 if there is only one. Both masks may be the same cut-out of larger ones if it leaves at
    least one pixel around the objects, except where the image ends. The tolerance is Euclidean, from `boundary_tolerance`.
    """
    wanted, found = boundary_pixels(annotation), boundary_pixels(prediction)
    num_wanted, num_found = cv2.countNonZero(wanted), cv2.countNonZero(found)
    if not num_wanted and not num_found:
        return 1.0
    if not num_wanted or not num_found:
        return 0.0
    precision = cv2.countNonZero(found & dilate(wanted, tolerance)) / num_found
    recall = cv2.countNonZero(wanted & dilate(found, tolerance)) / num_wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_pixels(mask: BinaryImage) -> Mask:
    """1 at pixels that differ from their right, lower or lower right neighbour, else 0.

    The image's own edge is no contour: a mask that fills the image has none.
    """
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8), anchor=(0, 0))


def dilate(image: Mask, radius: int) -> Mask:
    """Set to 1 every pixel of a binary image within a Euclidean distance of one that is 1, the others being 0.

    A disk is the union of its inscribed rectangles. From the tallest to the widest, each row of the image is widened a little more,
    and what is set so far grows up and down by the difference to the next height: short steps, in 60 % of the time that OpenCV takes
    for the disk at once.
    """
    heights = {math.isqrt(radius**2 - y**2): y for y in range(radius + 1)}  # half width -> half height
    half_width, half_height = 0, radius
    widened = result = image
    for next_width, next_height in sorted(heights.items()):
        widened = cv2.dilate(widened, np.ones((1, 2 * (next_width - half_width) + 1), np.uint8))
        result = cv2.dilate(result, np.ones((2 * (half_height - next_height) + 1, 1), np.uint8))
        result = cv2.bitwise_or(widened, result)
        half_width, half_height = next_width, next_height
    return result


def _read_prediction(path: Path, shape: tuple[int, ...], num_objects: int, one_object: bool) -> Mask:
    if not path.is_file():
        raise ValueError(f"{path}: no such prediction; every frame but the first and the last needs one")
    ids = read_mask(path)
    if ids.shape != shape:
        raise ValueError(f"{path}: {ids.shape[1]} x {ids.shape[0]} pixels, but the annotation has {shape[1]} x {shape[0]}")
    if one_object:
        return single_object(ids)
    if (highest := int(ids.max())) > num_objects:
        raise ValueError(f"{path}: object id {highest}, but the annotation has no id above {num_objects}")
    return ids
