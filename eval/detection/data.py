"""COCO 2017 as it is distributed: what must lie where, and which images a run uses.

coco/annotations/instances_{train,val}2017.json
coco/{train,val}2017/*.jpg
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.detection.categories import CATEGORY_NAMES
from eval.provenance import describe_dataset
from eval.result import Dataset

NAME = "COCO 2017"
ADDRESS = "https://cocodataset.org/#download"
SplitName = Literal["train2017", "val2017"]
FULL_SIZES: dict[str, int] = {"train2017": 118_287, "val2017": 5_000}
FULL_ANNOTATIONS: dict[str, int] = {"train2017": 860_001, "val2017": 36_781}
FULL_TRAINABLE = 117_266
"""Images of the full train2017 that training uses: those with annotations."""

SMALLEST_SIDE = 32
"""mmdet trains on no image with a side below this."""

_NAMES_SHOWN = 5
_NEEDED = ("bbox", "area", "segmentation")


class DataError(ValueError):
    """A dataset folder that is missing or incomplete."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of one split that a run uses."""

    root: Path
    """The folder that holds `annotations` and the image folders."""
    name: SplitName
    """Of the image folder."""
    images: tuple[str, ...]
    """One line per image of the annotation file, in its order: file name and number of annotations."""
    trainable: tuple[str, ...]
    """Those that training uses: with annotations, no side below 32 pixels."""
    limit: int | None
    """Only the first so many are used on the user's wish."""
    categories: tuple[tuple[int, str], ...]
    """Ids and names, in the order of the annotation file."""
    num_annotations: int
    """In the annotation file."""
    annotations_sha256: str
    """Of the annotation file."""

    @property
    def annotation_file(self) -> Path:
        """Path of the annotations."""
        return _annotation_file(self.root, self.name)

    @property
    def num_training_images(self) -> int:
        """Images per epoch."""
        return len(self.trainable[: self.limit])

    def describe(self) -> Dataset:
        """The split's fingerprint."""
        used = self.trainable if self.name == "train2017" else self.images
        restricted = self.limit is not None and self.limit < len(used)
        items = used[: self.limit] if restricted else self.images
        restricted = restricted or self.num_annotations != FULL_ANNOTATIONS[self.name]
        return describe_dataset(
            self.root, NAME, self.name, items, FULL_SIZES[self.name], restricted, content=self.annotations_sha256
        )


def check_data(root: Path, max_train_images: int | None = None, max_val_images: int | None = None) -> dict[str, Split]:
    """Read both annotation files, after proving that every image they list is there.

    Args:
        root: The folder that holds `annotations`, `train2017` and `val2017`.
        max_train_images: Use only the first so many training images that have annotations; None for all.
        max_val_images: Use only the first so many validation images; None for all.

    Returns:
        `train2017` and `val2017`.

    Raises:
        DataError: Names every file and folder that is missing or damaged, with what was expected where.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data is the folder with annotations, train2017 and val2017 of {ADDRESS}")
    limits: dict[SplitName, int | None] = {"train2017": max_train_images, "val2017": max_val_images}
    problems: list[str] = []
    for name in limits:
        if not _annotation_file(root, name).is_file():
            problems.append(f"no file {_annotation_file(root, name).relative_to(root)}")
        if not (root / name).is_dir():
            problems.append(f"no folder {name} (the full benchmark has {FULL_SIZES[name]} .jpg files there)")
    splits: dict[str, Split] = {}
    if not problems:
        splits = {name: _read_split(root, name, limit, problems) for name, limit in limits.items()}
    if not problems and splits["train2017"].categories != splits["val2017"].categories:
        problems.append("the categories of the two annotation files differ")
    if problems:
        raise DataError(f"{root} is not a complete COCO 2017: {'; '.join(problems)}; it comes from {ADDRESS}")
    return splits


def _annotation_file(root: Path, name: SplitName) -> Path:
    return root / "annotations" / f"instances_{name}.json"


def _read_split(root: Path, name: SplitName, limit: int | None, problems: list[str]) -> Split:
    """One split; what is wrong with it is appended to `problems`."""
    path = _annotation_file(root, name)
    try:
        encoded = path.read_bytes()
        content = json.loads(encoded)
        categories = tuple((entry["id"], entry["name"]) for entry in content["categories"])
        annotations = content["annotations"]
        counts = Counter(entry["image_id"] for entry in annotations)
        images = content["images"]
        listing = [f"{image['file_name']} {counts[image['id']]}" for image in images]
        trainable = [line for line, image in zip(listing, images, strict=True) if _is_trainable(image, counts)]
        unusable = _unusable(annotations, {number for number, _ in categories}, scored=name == "val2017")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a COCO annotation file ({error!r}); it comes from {ADDRESS}") from error
    present = {entry.name for entry in os.scandir(root / name)}
    if missing := [image["file_name"] for image in images if image["file_name"] not in present]:
        problems.append(f"{name} lacks {len(missing)} of the {len(images)} images of {path.name}: {_enumerate(missing)}")
    if not trainable:
        problems.append(f"{path.name} has no image with annotations")
    if unknown := [category for _, category in categories if category not in CATEGORY_NAMES]:
        problems.append(f"{path.name} has categories that are not COCO's 80: {_enumerate(unknown)}")
    if unusable:
        problems.append(f"{path.name} has {len(unusable)} annotations that cannot be used: {_enumerate(unusable)}")
    return Split(
        root=root,
        name=name,
        images=tuple(listing),
        trainable=tuple(trainable),
        limit=limit,
        categories=categories,
        num_annotations=len(annotations),
        annotations_sha256=hashlib.sha256(encoded).hexdigest(),
    )


def _unusable(annotations: Sequence[dict[str, Any]], categories: set[int], scored: bool) -> list[str]:
    """Annotations on which a run would stumble, or that it would leave out in silence, each with its fault.

    An empty outline only stops the scoring; the training leaves it out.
    """
    found = []
    for entry in annotations:
        if absent := [name for name in _NEEDED if name not in entry or (scored and entry[name] in (None, [], {}))]:
            found.append(f"{entry.get('id')} lacks {' and '.join(absent)}")
        elif entry["category_id"] not in categories:
            found.append(f"{entry.get('id')} is of the unlisted category {entry['category_id']}")
    return found


def _is_trainable(image: dict[str, Any], counts: Counter[int]) -> bool:
    return counts[image["id"]] > 0 and min(image["width"], image["height"]) >= SMALLEST_SIDE


def _enumerate(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
