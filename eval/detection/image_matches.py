"""Which detections of every single image match the ground truth: what average precision on any set of the images needs.

Arrays of the .npz file, per IoU type (prefix `bbox_` or `segm_`); D detections, G annotations that count, T IoU thresholds:

- `names` [N]: file names of the tested images, ascending; `categories` [K]: names.
- `image` int32 [D], `category` int16 [D], `score` float64 [D]: indices into these, and the confidence. In the order of pycocotools:
  by category, image id, falling score.
- `matched`, `ignored` uint16 [D]: bit t is set if the detection matches an annotation at threshold t, or matches one that does not
  count (a crowd).
- `truth_image` int32 [G], `truth_category` int16 [G]: of every annotation that counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from common.files import write_atomically
from eval.detection.coco_scoring import PYCOCOTOOLS, evaluated
from eval.detection.figures import IOU_TYPES, compared_alone

# As pycocotools has it.
_ALL_AREAS = (0, 1e5**2)


def match_images(
    truth: COCO, detections: Sequence[Mapping[str, Any]], image_ids: Sequence[int], category_ids: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """Match detections with the ground truth by pycocotools' rules, over all areas, up to 100 detections per image and class.

    Args:
        truth: Ground truth; may list more images than were tested.
        detections: In COCO's result format.
        image_ids: The images that were tested.
        category_ids: The categories to average over.

    Returns:
        The arrays of the file, see the module.
    """
    names = {image["id"]: image["file_name"] for image in truth.loadImgs(list(image_ids))}
    ordered = sorted(names, key=lambda image: names[image])
    arrays: dict[str, NDArray[Any]] = {
        "names": np.array([names[image] for image in ordered]),
        "categories": np.array([category["name"] for category in truth.loadCats(list(category_ids))]),
    }
    places = {image: place for place, image in enumerate(ordered)}
    for iou_type in IOU_TYPES:
        results = compared_alone(detections, iou_type)
        records = evaluated(truth, results, iou_type, image_ids, category_ids, PYCOCOTOOLS, {"all": _ALL_AREAS}).evalImgs
        arrays |= {f"{iou_type}_{name}": values for name, values in _matches(records, places, category_ids).items()}
    return arrays


def write_matches(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays as a compressed .npz, atomically."""
    named: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **named))


def _matches(
    records: Sequence[dict[str, Any] | None], places: Mapping[int, int], category_ids: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """The arrays of one IoU type, without their prefix, from what pycocotools keeps of each class and image."""
    categories = {category: number for number, category in enumerate(category_ids)}
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in ("image", "category", "score", "matched", "ignored")}
    annotations: dict[str, list[NDArray[Any]]] = {"truth_image": [], "truth_category": []}
    for record in records:
        if record is None:  # neither annotations nor detections
            continue
        place, category = places[record["image_id"]], categories[record["category_id"]]
        scores_D = np.asarray(record["dtScores"], np.float64)
        counting = int((np.asarray(record["gtIgnore"]) == 0).sum())
        found["image"].append(np.full(len(scores_D), place, np.int32))
        found["category"].append(np.full(len(scores_D), category, np.int16))
        found["score"].append(scores_D)
        found["matched"].append(_bits(np.asarray(record["dtMatches"]) > 0))
        found["ignored"].append(_bits(np.asarray(record["dtIgnore"]) > 0))
        annotations["truth_image"].append(np.full(counting, place, np.int32))
        annotations["truth_category"].append(np.full(counting, category, np.int16))
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in {**found, **annotations}.items()}


def _bits(flags_TD: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """[T, D] -> [D]; bit t is row t."""
    weights_T = (1 << np.arange(len(flags_TD), dtype=np.uint16))[:, None]
    return (flags_TD * weights_T).sum(axis=0, dtype=np.uint16)
