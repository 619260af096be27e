"""A detection and instance segmentation set in COCO's format: polygons, and one crowd as run lengths per split."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tools.sample_data.coco_categories import CATEGORY_IDS, coco_categories
from tools.sample_data.cutouts import Cutout, cutout_names, make_cutout, paste, place_mask
from tools.sample_data.images import write_jpeg
from tools.sample_data.scenes import LOWER, draw_scene

SIZES = ((176, 128), (128, 160))
"""Width and height in pixels, in turn."""
GROUNDS = tuple(name for name in LOWER if name != "table")
"""No table: it would be a `dining table` without an annotation."""
OBJECTS = (2, 4)
"""Fewest and most things that are tried in an image."""
OBJECT_SIZE = (36, 76)
"""Smallest and largest long side of a thing in pixels."""
CROWD_MEMBERS = 4
CROWD_MEMBER_SIZE = 26
"""Long side of each member in pixels."""
ATTEMPTS = 40
"""How often a free place is looked for; a thing that finds none is left out. The first always finds one."""


def draw_coco(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/{train2017,val2017}` and `root/annotations/instances_{train,val}2017.json`.

    Args:
        root: The new folder.
        rng: Chooses everything.
        train_images: Number of training images.
        val_images: Number of validation images.
    """
    first_id = 1
    for split, count in (("train2017", train_images), ("val2017", val_images)):
        content = _draw_split(root / split, rng, range(first_id, first_id + count))
        first_id += count
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def _draw_split(folder: Path, rng: np.random.Generator, image_ids: range) -> dict[str, Any]:
    """Write a split's images; returns the content of its annotation file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in image_ids:
        width, height = SIZES[image_id % len(SIZES)]
        image, drawn = _draw_image(rng, width, height, with_crowd=image_id == image_ids.start)
        file_name = f"{image_id:012d}.jpg"
        write_jpeg(folder / file_name, image)
        images.append({"license": 1, "file_name": file_name, "height": height, "width": width, "id": image_id})
        # Annotation ids are unique over both splits, as in COCO.
        annotations += [{**entry, "image_id": image_id, "id": 100 * image_id + index} for index, entry in enumerate(drawn)]
    return {
        "info": {"description": "PatchBench sample data in COCO's format: not a benchmark", "version": "1.0"},
        "licenses": [{"id": 1, "name": "see skimage.data", "url": "https://scikit-image.org"}],
        "images": images,
        "annotations": annotations,
        "categories": coco_categories(),
    }


def _draw_image(rng: np.random.Generator, width: int, height: int, with_crowd: bool) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The image, uint8 [height, width, 3], and its annotations without ids. Things do not overlap, so that masks are polygons."""
    image = draw_scene(rng, width, height, lower=GROUNDS).image.copy()
    taken = np.zeros((height, width), dtype=bool)
    annotations = []
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1], endpoint=True)):
        name = str(rng.choice(cutout_names()))
        cutout = make_cutout(name, int(rng.integers(*OBJECT_SIZE, endpoint=True)), mirrored=bool(rng.random() < 0.5))
        place = _find_place(rng, cutout, taken)
        if place is None:
            continue
        mask = paste(image, cutout, *place)
        taken |= mask
        segmentation = [(cutout.polygon + place).round(2).ravel().tolist()]
        annotations.append(_annotation(CATEGORY_IDS[name], segmentation, mask, iscrowd=0))
    if with_crowd and (crowd := _draw_crowd(rng, image, taken)).any():
        run_lengths = {"size": [height, width], "counts": _run_lengths(crowd)}
        annotations.append(_annotation(CATEGORY_IDS["person"], run_lengths, crowd, iscrowd=1))
    return image, annotations


def _draw_crowd(rng: np.random.Generator, image: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Paste small people where there is room, in place; returns the pixels of all of them, bool [H, W]."""
    crowd = np.zeros_like(taken)
    for _ in range(CROWD_MEMBERS):
        cutout = make_cutout("person", CROWD_MEMBER_SIZE, mirrored=bool(rng.random() < 0.5))
        place = _find_place(rng, cutout, taken | crowd)
        if place is not None:
            crowd |= paste(image, cutout, *place)
    return crowd


def _find_place(rng: np.random.Generator, cutout: Cutout, taken: np.ndarray) -> tuple[int, int] | None:
    """Left and top of a place inside the image where nothing is yet, or None."""
    height, width = taken.shape
    own_height, own_width = cutout.mask.shape
    for _ in range(ATTEMPTS):
        left, top = int(rng.integers(0, width - own_width + 1)), int(rng.integers(0, height - own_height + 1))
        if not (place_mask(cutout, left, top, height, width) & taken).any():
            return left, top
    return None


def _annotation(category_id: int, segmentation: object, mask: np.ndarray, iscrowd: int) -> dict[str, Any]:
    """An annotation without ids; area and box (x, y, width, height) are those of the mask."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": segmentation,
        "area": float(coco_mask.area(encoded)),
        "iscrowd": iscrowd,
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "category_id": category_id,
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, beginning with the zeros, of which there may be none."""
    values = np.concatenate([[False], mask.ravel(order="F")])
    borders = np.flatnonzero(np.diff(values))
    return np.diff(np.concatenate([[0], borders, [mask.size]])).tolist()
