"""Examines the content of a COCO annotation file: categories, boxes, polygons, run-length masks."""

import math
from collections import Counter, defaultdict
from typing import Any

from eval.detection.categories import CATEGORY_NAMES
from tools.data_doctor.report import Finding, Kind
from tools.sample_data.formats import CATEGORY_IDS

TOLERANCE = 1.0
"""So many pixels boxes and polygons may reach beyond their image: the official coordinates are rounded."""

_LEAST_POLYGON = 6  # coordinates: three points


def check_annotations(content: dict[str, Any], shown: str) -> list[Finding]:
    """Findings about the records of an annotation file.

    Args:
        content: The file's, with `images`, `annotations` and `categories`.
        shown: The file's name for the reader.

    Raises:
        KeyError: If a record lacks a field that is needed to speak of it.
        TypeError: If a record is no record.
    """
    troubles: dict[tuple[Kind, str], list[str]] = defaultdict(list)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    categories = {entry["id"]: entry["name"] for entry in content["categories"]}
    _check_categories(categories, troubles)
    for what, records in (("images", content["images"]), ("annotations", content["annotations"])):
        repeated = [number for number, count in Counter(record["id"] for record in records).items() if count > 1]
        troubles["wrong", f"ids of {what} occur more than once"] += map(str, repeated)
    files = Counter(image["file_name"] for image in content["images"])
    troubles["wrong", "images are listed more than once"] += [name for name, count in files.items() if count > 1]
    for annotation in content["annotations"]:
        name = f"annotation {annotation['id']} of image {annotation['image_id']}"
        if annotation["image_id"] not in sizes:
            troubles["note", "annotations belong to images that are not listed; the tasks leave them out"].append(name)
            continue
        if annotation["category_id"] not in categories:
            name = f"{name} (category {annotation['category_id']})"
            troubles["wrong", "annotations have a category that is not listed"].append(name)
        size = sizes[annotation["image_id"]]
        for kind, what in (*_box_troubles(annotation.get("bbox"), size), *_mask_troubles(annotation.get("segmentation"), size)):
            troubles[kind, what].append(name)
    advice = "get the official file, or make the subset anew"
    return [
        Finding(kind=kind, what=f"{shown}: {what}", names=tuple(names), advice=advice if kind != "note" else "")
        for (kind, what), names in troubles.items()
        if names
    ]


def _check_categories(categories: dict[int, str], troubles: dict[tuple[Kind, str], list[str]]) -> None:
    unknown = [name for name in categories.values() if name not in CATEGORY_NAMES]
    troubles["wrong", f"categories are not among COCO's {len(CATEGORY_NAMES)}"] += unknown
    other = [
        f"{name} ({number}, not {CATEGORY_IDS[name]})"
        for number, name in categories.items()
        if CATEGORY_IDS.get(name, number) != number
    ]
    troubles["note", "categories have other ids than the official ones; the tasks go by the names"] += other


def _box_troubles(box: Any, size: tuple[int, int]) -> list[tuple[Kind, str]]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        return [("wrong", "boxes are not four numbers")]
    left, top, width, height = box
    if width < 0 or height < 0:
        return [("wrong", "boxes have a negative width or height")]
    if min(left, top) < -TOLERANCE or left + width > size[0] + TOLERANCE or top + height > size[1] + TOLERANCE:
        return [("wrong", "boxes reach beyond their image")]
    if width < 1 or height < 1:
        # The official train2017 has such boxes too (cocodataset/cocoapi#355).
        return [("note", "boxes are less than a pixel wide or high; training leaves them out")]
    return []


def _mask_troubles(segmentation: Any, size: tuple[int, int]) -> list[tuple[Kind, str]]:
    if isinstance(segmentation, dict):
        return _runs_troubles(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        return [("wrong", "masks are neither polygons nor run lengths")]
    for polygon in segmentation:
        if not (isinstance(polygon, list) and all(map(_is_number, polygon))):
            return [("wrong", "polygons are not lists of numbers")]
        if len(polygon) < _LEAST_POLYGON or len(polygon) % 2:
            return [("wrong", "polygons have fewer than three points, or half a point")]
        if min(polygon) < -TOLERANCE or max(polygon[::2]) > size[0] + TOLERANCE or max(polygon[1::2]) > size[1] + TOLERANCE:
            return [("wrong", "polygons reach beyond their image")]
    return []


def _runs_troubles(mask: dict[str, Any], size: tuple[int, int]) -> list[tuple[Kind, str]]:
    width, height = size
    if mask.get("size") != [height, width]:
        return [("wrong", "run-length masks have another size than their image")]
    counts = mask.get("counts")
    runs = decode_runs(counts) if isinstance(counts, str) else counts
    if not (isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == width * height):
        return [("wrong", "run-length masks do not cover their image")]
    return []


def decode_runs(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed form; None where it breaks off or has foreign characters.

    Each number is written in groups of five bits, lowest first, in characters from `0` on; bit 5 says that more follow, bit 4 of
    the last is the sign. From the fourth number on, it is the difference to the last but one.

    Source: `rleFrString` of cocodataset/cocoapi (8c9bcc3), `common/maskApi.c`.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - ord("0")
        if not 0 <= group < 64:
            return None
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs if shift == 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
