"""COCO 2017 as it is distributed: which images a run uses, and whether all of it is there and whole.

coco/annotations/instances_{train,val}2017.json
coco/{train,val}2017/*.jpg
"""

import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import check_name, one_line
from eval.findings import Finding, Kind, about, refuse
from eval.image_checks import (
    by_opencv,
    damage_findings,
    list_images,
    look_at_all,
    same_folder_findings,
    size_findings,
    text_damage,
)
from eval.record import describe_dataset
from eval.result import Dataset

NAME = "COCO 2017"
ADDRESS = "https://cocodataset.org/#download"
FULL_SIZES = {"train2017": 118_287, "val2017": 5_000}
FULL_ANNOTATIONS = {"train2017": 860_001, "val2017": 36_781}
FULL_TRAINABLE = 117_266  # images of the full train2017 that training uses: those with annotations
SMALLEST_SIDE = 32  # mmdet trains on no image with a side below this

CATEGORY_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
    *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors"),
    *("teddy bear", "hair drier", "toothbrush"),
)
"""In the order of the official ids, which run from 1 to 90 with gaps."""

_ANNOTATIONS = "annotations/instances_{}.json"
_TOLERANCE = 1.0  # pixels that boxes and polygons may reach beyond their image: the official coordinates are rounded
_FEWEST_COORDINATES = 6  # three points
_MOST_BITS = 60  # of the length of a run
_MOST_OF_64_BITS = 2**63 - 1  # beyond, numpy turns ids into floating point, and pycocotools finds none
_LARGEST_AREA = 1e10  # pixels; pycocotools leaves out larger objects
_FIELDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "width": int, "height": int, "file_name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """What the annotation file lists of one split, `train2017` or `val2017`, and which of its images a run uses."""

    root: Path
    name: str
    images: tuple[str, ...]  # a line per image, in the order of the file: file name and number of annotations
    trainable: tuple[str, ...]  # those that training uses: with annotations, and no side below 32 pixels
    limit: int | None  # the user's wish to use only the first N; None for all
    categories: tuple[tuple[int, str], ...]  # ids and names, in the order of the file
    num_annotations: int
    annotations_sha256: str
    sizes: Mapping[str, tuple[int, int]]  # file name -> (width, height)

    @property
    def annotation_file(self) -> Path:
        return self.root / _ANNOTATIONS.format(self.name)

    @property
    def used(self) -> tuple[str, ...]:
        """The lines of the images that a run takes; all, where the user does not restrict them."""
        usable = self.trainable if self.name == "train2017" else self.images
        return usable[: self.limit] if self.limit is not None and self.limit < len(usable) else self.images

    @property
    def used_names(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in self.used]

    def describe(self) -> Dataset:
        restricted = len(self.used) < len(self.images) or self.num_annotations != FULL_ANNOTATIONS[self.name]
        return describe_dataset(
            self.root, NAME, self.name, self.used, FULL_SIZES[self.name], restricted, self.annotations_sha256
        )

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        """Look at the image files that a run uses; `deep` decodes them, in at most so many processes (0: one per core)."""
        paths = [self.root / self.name / name for name in self.used_names]
        present = [path for path in paths if path.exists()]
        facts = list(look_at_all(present, jobs, f"{NAME} {self.name}", by_opencv if deep else None))
        pairs = ((fact, self.sizes[fact.path.name]) for fact in facts)
        return [
            *damage_findings(facts, self.root, f"get them again from {ADDRESS}"),
            *size_findings(pairs, self.root, self.annotation_file.name, "they were resized, or are other images"),
        ]


def check_data(root: Path, max_train_images: int | None = None, max_val_images: int | None = None) -> dict[str, Split]:
    """Read both annotation files, after proving that every image they list is there.

    The limits take the first N training images that have annotations, and the first N validation images. ValueError names every
    file and folder that is missing or damaged, with what was expected where.
    """
    splits, findings = _read_splits(root, max_train_images, max_val_images)
    refuse(findings)
    return splits


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Examine all of a COCO folder, as `Split.check_files` does a split."""
    splits, findings = _read_splits(folder, None, None)
    return findings + [finding for split in splits.values() for finding in split.check_files(deep, jobs)]


def _read_splits(root: Path, *limits: int | None) -> tuple[dict[str, Split], list[Finding]]:
    if not root.is_dir():
        contents = f"the data of detection is the folder with annotations, train2017 and val2017 of {ADDRESS}"
        return {}, [Finding("missing", f"{root}: no such folder; {contents}")]
    splits: dict[str, Split] = {}
    findings: list[Finding] = []
    for name, limit in zip(FULL_SIZES, limits, strict=True):
        split, found = _read_split(root, name, limit)
        findings += found
        if split is not None:
            splits[name] = split
    findings += same_folder_findings(root, *FULL_SIZES)
    if len({split.categories for split in splits.values()}) > 1:
        # mmdet numbers the classes by the order of the file: another order in the other file would exchange them in silence.
        findings.append(
            Finding("wrong", "the categories of the two annotation files differ", tuple(map(_ANNOTATIONS.format, splits)))
        )
    return splits, findings


def _read_split(root: Path, name: str, limit: int | None) -> tuple[Split | None, list[Finding]]:
    shown = _ANNOTATIONS.format(name)
    path, folder = root / shown, root / name
    get = f"get it from {ADDRESS}"
    findings: list[Finding] = []
    if not path.is_file():
        findings.append(Finding("missing", f"{root} has no file {shown}", advice=get))
    elif damage := text_damage(path):
        findings.append(Finding("damaged", f"{shown}: annotation files are {damage}", advice=get))
    if not folder.is_dir():
        text = f"{root} has no folder {name} (the full benchmark has {FULL_SIZES[name]} .jpg files there)"
        findings.append(Finding("missing", text, advice=get))
    if findings:
        return None, findings
    try:
        content, sha256 = _read_content(path)
        images, annotations = content["images"], content["annotations"]
        categories = tuple((entry["id"], entry["name"]) for entry in content["categories"])
        counts = Counter(entry["image_id"] for entry in annotations)
        listing = [f"{image['file_name']} {counts[image['id']]}" for image in images]
        sizes = {image["file_name"]: (image["width"], image["height"]) for image in images}
        trainable = [
            line
            for line, image in zip(listing, images, strict=True)
            if counts[image["id"]] and min(sizes[image["file_name"]]) >= SMALLEST_SIDE
        ]
        findings += _annotation_findings(content, path.name, scored=name == "val2017")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        return None, [Finding("damaged", f"{root}/{shown}: not a COCO annotation file ({reason})", advice=get)]
    found, others = list_images(folder, ".jpg", root)
    present = {path.name for path in found.values()}
    missing, unlisted = sorted(sizes.keys() - present), sorted(present - sizes.keys())
    text = f"{folder} lacks {len(missing)} of the {len(images)} images of {path.name}"
    findings += about("missing", text, missing, f"get them from {ADDRESS}")
    findings += about("note", f"images in {name} that are not in {path.name} are ignored", unlisted)
    if (len(images), len(annotations)) != (FULL_SIZES[name], FULL_ANNOTATIONS[name]):
        boxes = f"{len(annotations):,} of {FULL_ANNOTATIONS[name]:,} boxes"
        findings.append(Finding("subset", f"{name}: {len(images):,} of {FULL_SIZES[name]:,} images, {boxes}"))
    split = Split(
        root=root,
        name=name,
        images=tuple(listing),
        trainable=tuple(trainable),
        limit=limit,
        categories=categories,
        num_annotations=len(annotations),
        annotations_sha256=sha256,
        sizes=sizes,
    )
    if not any(finding.is_problem for finding in findings) and not _has_objects(split, content):
        reason = "crowds do not count" if name == "val2017" else "crowds and boxes without area do not count"
        findings.append(Finding("wrong", f"{path.name}: no image that is used has an object ({reason})"))
    return split, findings + others


def _read_content(path: Path) -> tuple[dict[str, Any], str]:
    """An annotation file's content, whose fields are of the right kind, and its digest."""
    encoded = path.read_bytes()
    content = json.loads(encoded.decode())  # nothing but UTF-8, as mmdet reads it
    for what, fields in _FIELDS.items():
        for entry, (field, kind) in itertools.product(content[what], fields.items()):
            value = entry[field]
            if type(value) is not kind:
                raise TypeError(f"{what}: {field} {value!r} is not a {'whole number' if kind is int else 'text'}")
            if isinstance(value, int) and abs(value) > _MOST_OF_64_BITS:
                raise ValueError(f"{what}: {field} {value} does not fit 64 bits")
    for image in content["images"]:
        check_name(image["file_name"], "images: file_name")
    return content, hashlib.sha256(encoded).hexdigest()


def _has_objects(split: Split, content: Mapping[str, Any]) -> bool:
    """Whether a run has anything to learn from, or to find; otherwise, its metrics would be no numbers."""
    used = set(split.used_names)
    ids = {image["id"] for image in content["images"] if image["file_name"] in used}
    objects = (entry for entry in content["annotations"] if entry["image_id"] in ids and not entry.get("iscrowd"))
    return any(split.name == "val2017" or not _is_left_out(entry) for entry in objects)


def _is_left_out(entry: Mapping[str, Any]) -> bool:
    """Whether mmdet leaves an annotation out of the training. The official train2017 has such boxes (cocodataset/cocoapi#355)."""
    return bool(entry.get("ignore")) or entry["area"] == 0 or min(entry["bbox"][2:]) < 1


def _annotation_findings(content: Mapping[str, Any], file: str, scored: bool) -> list[Finding]:
    """What a run would stumble on, or leave out in silence."""
    categories = {entry["id"]: entry["name"] for entry in content["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    unknown = [name for name in categories.values() if name not in CATEGORY_NAMES]
    findings = about("wrong", f"{file} has categories that are not COCO's {len(CATEGORY_NAMES)}", unknown)
    for what, field in (
        ("images", "id"),
        ("images", "file_name"),
        ("annotations", "id"),
        ("categories", "id"),
        ("categories", "name"),
    ):
        repeated = [str(value) for value, count in Counter(entry[field] for entry in content[what]).items() if count > 1]
        findings += about("wrong", f"{file}: {what} have the same {field} more than once", repeated)
    troubles: dict[tuple[Kind, str], list[str]] = defaultdict(list)
    for entry in content["annotations"]:
        if (size := sizes.get(entry["image_id"])) is None:
            troubles["note", "annotations belong to images that are not listed, and are left out"].append(str(entry["id"]))
            continue
        for trouble in _troubles(entry, size, categories, scored):
            troubles[trouble].append(f"{entry['id']} of image {entry['image_id']}")
    for (kind, text), names in troubles.items():
        findings += about(kind, f"{file}: {text}", names, "take the official file" if kind == "wrong" else "")
    return findings


def _troubles(
    entry: Mapping[str, Any], size: tuple[int, int], categories: Mapping[int, str], scored: bool
) -> Iterator[tuple[Kind, str]]:
    """What is wrong with one annotation."""
    needed = ("bbox", "area", "segmentation", *(("iscrowd",) if scored else ()))
    if absent := [name for name in needed if entry.get(name) in (None, [], {})]:
        yield "wrong", f"annotations lack {' and '.join(absent)}"
        return
    if entry["category_id"] not in categories:
        yield "wrong", f"annotations are of the unlisted category {entry['category_id']}"
    if entry.get("iscrowd", 0) not in (0, 1) or not _are_numbers([entry["area"]]) or not 0 <= entry["area"] <= _LARGEST_AREA:
        yield "wrong", "annotations have an iscrowd that is neither 0 nor 1, or an area that is not a positive number"
        return
    box, shape = entry["bbox"], entry["segmentation"]
    if not _are_numbers(box) or len(box) != 4:
        yield "wrong", "boxes are not four numbers"
        return
    left, top, width, height = box
    if width < 0 or height < 0:
        yield "wrong", "boxes have a negative width or height"
    elif _reaches_beyond((left, left + width), (top, top + height), size):
        yield "wrong", "boxes reach beyond their image"
    elif not scored and _is_left_out(entry):
        yield "note", "annotations have `ignore`, no area, or a box of less than a pixel; training leaves them out"
    elif not width or not height:
        yield "note", "boxes are empty: no detection can match them"
    if isinstance(shape, dict):
        if shape.get("size") != [size[1], size[0]] or _run_lengths(shape.get("counts")) != size[0] * size[1]:
            yield "wrong", "run-length masks are damaged, or of another size than their image"
    elif not isinstance(shape, list) or not all(map(_are_numbers, shape)):
        yield "wrong", "masks are neither lists of polygons nor run lengths"
    else:
        usable = [polygon for polygon in shape if len(polygon) >= _FEWEST_COORDINATES and not len(polygon) % 2]
        if any(_reaches_beyond(polygon[::2], polygon[1::2], size) for polygon in usable):
            yield "wrong", "polygons reach beyond their image"
        elif len(usable) < len(shape):
            # Scoring stops at one such polygon, training leaves it out.
            kind: Kind = "note" if usable and not scored else "wrong"
            yield kind, "polygons have fewer than three points, or half a point"


def _are_numbers(values: Any) -> bool:
    """Whether it is a list of finite numbers."""
    return isinstance(values, list) and all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _run_lengths(counts: Any) -> int:
    """How many pixels the runs of a COCO mask have together, whether a list or its compressed text; -1 if it is damaged."""
    if isinstance(counts, list):
        return sum(counts) if all(type(run) is int and run >= 0 for run in counts) else -1
    if not isinstance(counts, str) or not all(48 <= ord(character) < 112 for character in counts):
        return -1
    # pycocotools, rleFrString: 5 bits a character, the lowest first, the 6th says that more follow; from the third run on, the
    # difference to the run before the last.
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in counts):
        if shift > _MOST_BITS:
            return -1
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            runs.append((value - (1 << shift) if code & 16 else value) + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs) if not shift and min(runs, default=-1) >= 0 else -1


def _reaches_beyond(x: Sequence[float], y: Sequence[float], size: tuple[int, int]) -> bool:
    return bool(min(x) < -_TOLERANCE or min(y) < -_TOLERANCE or max(x) > size[0] + _TOLERANCE or max(y) > size[1] + _TOLERANCE)
