"""`python -m eval.object_discovery.scores`: CorLoc of anybody's boxes, such as those that LOST publishes. Loads no torch.

Shapes: G true boxes of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.cli import parse, run_command
from common.files import parse_json
from common.images import read_file
from eval.findings import first_few
from eval.object_discovery.data import Boxes, check_data, checked_boxes

LEAST_IOU = 0.5

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """Print the share of images in which a box finds an object, in percent (CorLoc)."""

    data: Path  # VOC2007, VOC2012 or coco20k, as for the task.
    boxes: Path
    """JSON file with `boxes`: file name of every image -> left, top, right and bottom in pixels, the last two just outside."""
    no_hard: bool = False  # Whether to leave out PASCAL VOC's truncated and difficult objects.


def overlaps(box: Boxes, truth_G4: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union [G] of a box with every true one; two empty ones have none."""
    lows, highs = np.maximum(box[:2], truth_G4[:, :2]), np.minimum(box[2:], truth_G4[:, 2:])
    shared_G = (highs - lows).clip(0).prod(axis=1)
    areas_G = (truth_G4[:, 2:] - truth_G4[:, :2]).prod(axis=1)
    united_G = (box[2:] - box[:2]).prod() + areas_G - shared_G
    iou_G: npt.NDArray[np.float64] = shared_G / np.maximum(united_G, 1)
    return iou_G


def is_hit(box: Boxes, truth_G4: Boxes, least_iou: float = LEAST_IOU) -> bool:
    """Whether a box finds any of the objects; an image without objects is a miss."""
    return bool((overlaps(box, truth_G4) >= least_iou).any())


def score(config: ScoresConfig) -> tuple[int, int]:
    """How many images have a hit, and how many there are."""
    found = check_data(config.data, config.no_hard)
    try:
        boxes = parse_json(read_file(config.boxes).decode())["boxes"]
        missing = sorted(found.images.keys() - boxes.keys())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{config.boxes}: not a JSON file with `boxes` ({error!r})") from error
    if missing:
        raise ValueError(f"{config.boxes}: no box for {first_few(missing, _SHOWN)} of {config.data}")
    hits = [is_hit(_box(boxes[name], f"{config.boxes}: {name}"), image.boxes) for name, image in found.images.items()]
    return sum(hits), len(hits)


def _box(listed: Any, where: str) -> Boxes:
    if not isinstance(listed, list) or len(listed) != 4 or not all(type(end) is int for end in listed):
        raise ValueError(f"{where}: {listed} is not left, top, right, bottom in whole pixels")
    try:
        box: Boxes = checked_boxes([tuple(listed)])[0]
    except ValueError as error:
        raise ValueError(f"{where}: {listed}: {error}") from error
    return box


def main(argv: Sequence[str]) -> int:
    hits, images = score(parse(ScoresConfig, argv, "python -m eval.object_discovery.scores"))
    print(f"CorLoc {100 * hits / images:.2f}  ({hits} of {images} images)")  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
