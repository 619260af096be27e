"""PASCAL VOC 2007 and 2012 and COCO 20k: the images in which to find an object, and the boxes of their objects.

VOCdevkit/VOC2007/{JPEGImages/NAME.jpg,Annotations/NAME.xml}    boxes in pixels from 1, both ends within
VOCdevkit/VOC2007/ImageSets/Main/trainval.txt                   names, one per line
coco20k/{train2014,annotations/instances_train2014.json}        COCO 2014
coco20k/coco_20k_filenames.txt                                  names of images of train2014, one per line

Boxes here are [left, top, right, bottom] in pixels from 0, the right and bottom end without. Loads no torch.
Source: valeoai/LOST fcedbec, `datasets.py`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from common.files import check_name
from common.images import read_file, read_lines
from common.strict import parse_xml
from eval.findings import Finding, about, refuse
from eval.image_checks import are_inside, by_opencv, damage_findings, look_at_all, size_findings
from eval.object_discovery import TASK
from eval.record import describe_dataset
from eval.result import Dataset

Boxes = npt.NDArray[np.int64]
Annotation = tuple[Boxes, tuple[int, int] | None]
"""Boxes [N, 4] of an image and its (width, height), where that is stated."""

_SETS = TASK.on_each_set()
_VOC07, _VOC12, _COCO = ([download.address for download in found.downloads] for found in _SETS)
_COCO_IMAGES, _COCO_ANNOTATIONS, _COCO_NAMES = _COCO
_LIST, _COCO_LIST, _COCO_FILE = "ImageSets/Main/trainval.txt", "coco_20k_filenames.txt", "annotations/instances_train2014.json"
_MOST_OUTSIDE = 1  # pixels by which rounding may move an end out of the image
_FARTHEST = 1 << 20  # pixels


class Labelled(NamedTuple):
    """An image, the boxes [N, 4] of its objects, and the (width, height) that its annotation states, if any."""

    path: Path
    boxes: Boxes
    size: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class BoxSet:
    """The images of a set by name, ascending; `restricted`: the user leaves some objects out."""

    root: Path
    name: str
    split: str
    full: int
    address: str
    images: Mapping[str, Labelled]
    restricted: bool = False

    def describe(self) -> Dataset:
        """The fingerprint: file names with their sizes in bytes and the boxes."""
        items = (f"{name} {image.path.stat().st_size} {image.boxes.tolist()}" for name, image in self.images.items())
        return describe_dataset(self.root, self.name, self.split, items, self.full, self.restricted)

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        """Look at all images, and whether the boxes lie in them."""
        paths = [image.path for image in self.images.values()]
        facts = list(look_at_all(paths, jobs, f"{self.name} images", by_opencv if deep else None))
        outside = [
            f"{name} ({fact.size[0]} x {fact.size[1]})"
            for (name, image), fact in zip(self.images.items(), facts, strict=True)
            if fact.size and not are_inside(image.boxes, fact.size, _MOST_OUTSIDE)
        ]
        stated = (image.size for image in self.images.values())
        advice = "the images were resized, or the annotations are of other images"
        return [
            *damage_findings(facts, self.root, f"get them again from {self.address}"),
            *size_findings(zip(facts, stated, strict=True), self.root, "their annotations", advice),
            *about("wrong", "boxes end outside of their images", outside, advice),
        ]


def check_data(root: Path, no_hard: bool = False) -> BoxSet:
    """ValueError names everything that is wrong with lists, annotations or images."""
    found, findings = read_set(root, no_hard)
    refuse(findings)
    assert found is not None
    refuse(found.check_files())
    return found


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Everything that is wrong with the set."""
    found, findings = read_set(folder)
    return findings + (found.check_files(deep, jobs) if found else [])


def read_set(root: Path, no_hard: bool = False) -> tuple[BoxSet | None, list[Finding]]:
    """The set of a folder by the list that it holds, and what is wrong with lists and annotations."""
    is_coco = (root / _COCO_LIST).is_file()
    if not is_coco and not (root / _LIST).is_file():
        text = f"{root}: {f'neither {_LIST} nor {_COCO_LIST} in it' if root.is_dir() else 'no such folder'}"
        advice = f"give VOC2007 or VOC2012 ({_VOC07[0]}, {_VOC12[0]}) or coco20k with the list of {_COCO_NAMES}"
        return None, [Finding("missing", text, advice=advice)]
    if is_coco and no_hard:
        raise ValueError("no_hard=True: only PASCAL VOC says which objects are hard; leave it out for COCO 20k")
    try:
        found, findings = _read_coco(root) if is_coco else _read_voc(root, no_hard)
    except ValueError as error:  # of a list
        return None, [Finding("wrong", str(error), advice="get the list again")]
    if found is not None and len(found.images) != found.full:
        findings.append(Finding("subset", f"{found.split}: {len(found.images):,} of {found.full:,} images"))
    return found, findings


def _read_voc(root: Path, no_hard: bool) -> tuple[BoxSet | None, list[Finding]]:
    names = read_lines(root / _LIST)
    is_2007 = not any("_" in name for name in names)  # 2012's names begin with a year
    title, full, address = ("PASCAL VOC 2007", 5011, _VOC07[0]) if is_2007 else ("PASCAL VOC 2012", 11_540, _VOC12[0])

    def read(name: str) -> Annotation:
        return _voc_annotation(root / f"Annotations/{name}.xml", no_hard)

    places = {f"{name}.jpg": root / f"JPEGImages/{name}.jpg" for name in names}
    images, findings = _read_images(root, _LIST, names, places, read, address)
    images = {name: image for name, image in images.items() if len(image.boxes) or not no_hard}
    if not images and not findings:
        findings = [Finding("wrong", f"{root}: every object is truncated or difficult", advice="leave out --no-hard")]
    found = BoxSet(root=root, name=title, split="trainval", full=full, address=address, images=images, restricted=no_hard)
    return found if images else None, findings


def _read_images(
    root: Path, listing: str, names: list[str], places: Mapping[str, Path], read: Callable[[str], Annotation], address: str
) -> tuple[dict[str, Labelled], list[Finding]]:
    """The images at these places by file name, with what `read` gives by name, and what is wrong with them."""
    if len(set(names)) < len(names) or not names:
        return {}, [Finding("wrong", f"{root / listing} must name at least one image, none twice", advice=f"get {address}")]
    for name in names:
        check_name(name, f"{root / listing}:")
    absent = [name for name, path in places.items() if not path.is_file()]
    findings = about("missing", f"{root} lacks images that {listing} names", absent, f"get them from {address}")
    images, wrong = {}, []
    for name, (file_name, path) in zip(names, places.items(), strict=True):
        try:
            images[file_name] = Labelled(path, *read(name))
        except (OSError, ValueError) as error:
            wrong.append(f"{file_name} ({error.strerror if isinstance(error, OSError) else error})")
    findings += about("wrong", f"{root}: images have no usable annotation", wrong, f"get it from {address}")
    present = {name: image for name, image in sorted(images.items()) if image.path.is_file()}
    return present, findings


def _voc_annotation(path: Path, no_hard: bool) -> Annotation:
    root = parse_xml(read_file(path), "annotation")
    boxes: list[tuple[int, ...]] = []
    for found in root.findall("object"):
        if no_hard and "1" in (found.findtext("truncated"), found.findtext("difficult")):
            continue
        left, top, right, bottom = _numbers(found, [f"bndbox/{end}" for end in ("xmin", "ymin", "xmax", "ymax")])
        boxes.append((left - 1, top - 1, right, bottom))
    if root.find("size") is None:
        return checked_boxes(boxes), None
    width, height = _numbers(root, ["size/width", "size/height"])
    return checked_boxes(boxes), (width, height)


def _numbers(element: Element, places: list[str]) -> list[int]:
    """Whole numbers in an element; some of 2012's are fractions, which are cut off."""
    texts = [element.findtext(place) or "nothing" for place in places]
    try:
        return [int(float(text)) for text in texts]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{element.tag} has {', '.join(texts)} for {', '.join(places)}") from error


def checked_boxes(boxes: list[tuple[int, ...]]) -> Boxes:
    """The boxes [N, 4]; ValueError for one that ends before it begins, or that no image can hold."""
    if any(abs(end) > _FARTHEST for box in boxes for end in box):
        raise ValueError("a box is larger than any image")
    found = np.array(boxes, np.int64).reshape(-1, 4)
    if (found[:, :2] > found[:, 2:]).any():
        raise ValueError("a box ends before it begins")
    return found


def _read_coco(root: Path) -> tuple[BoxSet | None, list[Finding]]:
    path = root / _COCO_FILE
    names = [PurePosixPath(line).name for line in read_lines(root / _COCO_LIST)]
    try:
        annotations = _coco_annotations(path, set(names))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else f"not an annotation file of COCO ({error!r})"
        return None, [Finding("damaged", f"{path}: {what}", advice=f"get it from {_COCO_ANNOTATIONS}")]

    def read(name: str) -> Annotation:
        if name not in annotations:
            raise ValueError(f"not in {path.name}, which is of another version")
        boxes, size = annotations[name]
        return checked_boxes(boxes), size

    places = {name: root / "train2014" / name for name in names}
    images, findings = _read_images(root, _COCO_LIST, names, places, read, _COCO_IMAGES)
    found = BoxSet(root=root, name="COCO 20k", split="train2014", full=19_817, address=_COCO_IMAGES, images=images)
    return found if images else None, findings


def _coco_annotations(path: Path, names: set[str]) -> dict[str, tuple[list[tuple[int, ...]], tuple[int, int]]]:
    """Boxes and size of these images, without the boxes of crowds; ends are rounded as Python does, half to even."""
    content = json.loads(read_file(path))
    by_id = {image["id"]: image for image in content["images"] if image["file_name"] in names}
    boxes: dict[int, list[tuple[int, ...]]] = {number: [] for number in by_id}
    for annotation in content["annotations"]:
        if annotation["iscrowd"] != 1 and annotation["image_id"] in boxes:
            x, y, width, height = annotation["bbox"]
            boxes[annotation["image_id"]].append(tuple(round(end) for end in (x, y, x + width, y + height)))
    return {image["file_name"]: (boxes[number], (int(image["width"]), int(image["height"]))) for number, image in by_id.items()}
