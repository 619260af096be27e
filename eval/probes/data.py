"""Splits of images with label maps: the pairs that a run uses, their classes, and whether all of it is whole.

Which data sets there are is said by `eval.probes.sets`. Loads no torch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.files import text_sha256
from common.images import to_rgb
from eval.findings import Finding, about, refuse
from eval.image_checks import (
    PILLOW_ERRORS,
    ImageFacts,
    by_opencv,
    damage_findings,
    label_map,
    look_at_all,
    size_findings,
)
from eval.record import describe_dataset
from eval.result import Dataset

VOID = 255  # in label maps of class indices: pixels that do not count

_LABELS_READ = 200  # label maps per split, spread evenly, whose values are read even where not everything is decoded

Pairs = dict[str, tuple[Path, Path]]
"""Name of an image -> its file and that of its label map; in the order of the names."""


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """What is known of a data set, and how its splits are listed."""

    name: str
    address: str
    sizes: dict[str, int]  # split -> its published number of pairs
    train: str  # the splits that a protocol takes unless it says otherwise
    test: str
    classes: tuple[str, ...]  # without what is void
    void: int  # in the files
    void_name: str
    foreign: str  # what files with other labels are
    list_pairs: Callable[["LabelledSet", Path, str], tuple[Pairs, list[Finding]]]
    class_of_number: tuple[int, ...] = ()  # where the files' numbers are finer than the classes
    colours: Mapping[tuple[int, ...], int] = field(default_factory=dict)  # of numbers, in files with a palette

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def labels(self) -> str:
        """The labels that its files may hold, in words."""
        last = len(self.class_of_number or self.classes) - 1
        return f"0 to {self.num_classes}" if self.void == 0 else f"0 to {last} and {self.void}"

    def is_label(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        first = 1 if self.void == 0 else 0
        count = len(self.class_of_number or self.classes)
        found: npt.NDArray[np.bool_] = (values == self.void) | ((values >= first) & (values < first + count))
        return found

    def decode(self, path: Path) -> npt.NDArray[Any]:
        """The numbers in a file; ValueError where its palette shows that they are others, as after a way through colours."""
        numbers_HW = label_map(path)
        with Image.open(path) as image:
            palette = (image.getpalette() or []) if image.mode == "P" and self.colours else []
        shown = {number: tuple(palette[3 * number : 3 * number + 3]) for number in np.unique(numbers_HW).tolist() if palette}
        for number, colour in shown.items():
            if self.colours.get(colour, number) != number:
                raise ValueError(
                    f"number {number} has the colour of {self.colours[colour]}, so that its numbers are not classes"
                )
        return numbers_HW

    def read_labels(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """A label map, uint8 [H, W] for an image of (width, height); ValueError for numbers that the set does not have."""
        try:
            labels_HW = self.decode(path)
        except PILLOW_ERRORS as error:
            raise ValueError(f"{path}: not a readable label map ({error}); get it again from {self.address}") from error
        if labels_HW.shape != size[::-1]:
            raise ValueError(
                f"{path}: label map of shape {labels_HW.shape} for an image of {size[1]} x {size[0]} (rows, columns)"
            )
        if not self.is_label(labels_HW).all():
            found = np.unique(labels_HW[~self.is_label(labels_HW)])[:5]
            raise ValueError(f"{path}: labels {', '.join(map(str, found))}; {self.name}'s are {self.labels}; {self.foreign}")
        labels_HW = labels_HW.astype(np.uint8)
        if not self.class_of_number:
            return labels_HW
        table = np.full(256, VOID, np.uint8)
        table[: len(self.class_of_number)] = self.class_of_number
        return table[labels_HW]

    def read_classes(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """`read_labels` as indices of classes from 0, `VOID` where the pixel does not count."""
        labels_HW = self.read_labels(path, size)
        return labels_HW - np.uint8(1) if self.void == 0 else labels_HW  # in 8 bits, 0 - 1 is 255


def read_image(path: Path) -> Image.Image:
    """An image in RGB; ValueError if it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except PILLOW_ERRORS as error:
        raise ValueError(f"{path}: cannot be decoded ({error}); repair or replace it") from error


@dataclass(frozen=True, kw_only=True)
class Split:
    """The pairs of image and label map of one split that a run uses; `restricted`: some were left out on the user's wish."""

    root: Path
    of: LabelledSet
    name: str
    pairs: Mapping[str, tuple[Path, Path]]
    restricted: bool

    def describe(self) -> Dataset:
        """The split's fingerprint: names with the sizes of both files in bytes."""
        items = (f"{name} {image.stat().st_size} {labels.stat().st_size}" for name, (image, labels) in self.pairs.items())
        return describe_dataset(self.root, self.of.name, self.name, items, self.of.sizes[self.name], self.restricted)

    @property
    def content_sha256(self) -> str:
        """Changes with every change of a file, for caches; unlike the fingerprint, it may differ between copies."""
        states = [(path, path.stat()) for pair in self.pairs.values() for path in pair]
        return text_sha256("\n".join(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states))

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        """Look at the files that a run uses; `deep` decodes them, in at most so many processes (0: one per core).

        A file that breaks off, replaced after the training, would be another input; so it has to be found before.
        """
        image_paths, label_paths = zip(*self.pairs.values(), strict=True)
        what = f"{self.of.name} {self.name}"
        images = list(look_at_all(image_paths, jobs, f"{what} images", by_opencv if deep else None))
        labels = list(look_at_all(label_paths, jobs, f"{what} label maps", self.of.decode if deep else None, labels=True))
        whole = [fact.path for fact in labels if not fact.damage]
        if not deep:
            labels = self._read_values(labels, whole[:: max(1, len(whole) // _LABELS_READ)], jobs)
            if not any(map(self._shows_a_class, labels)):  # so that the others decide
                labels = self._read_values(labels, whole, jobs)
        foreign = [
            f"{fact.path.relative_to(self.root).as_posix()} ({', '.join(map(str, values[:5]))})"
            for fact in labels
            if (values := [value for value in fact.values or () if not self.of.is_label(np.array(value))])
        ]
        pairs = ((image, label.size) for image, label in zip(images, labels, strict=True))
        place = self._label_folder()
        nothing = f"{place}: no label map that is used shows a class, only {self.of.void} ({self.of.void_name})"
        return [
            *damage_findings([*images, *labels], self.root, f"get them again from {self.of.address}"),
            *size_findings(pairs, self.root, "their label maps", "they were resized, or are other images"),
            *about("wrong", f"label maps hold labels other than {self.of.labels}", foreign, self.of.foreign),
            *([] if any(map(self._shows_a_class, labels)) or not whole else [Finding("wrong", nothing)]),
        ]

    def _read_values(self, labels: list[ImageFacts], paths: list[Path], jobs: int) -> list[ImageFacts]:
        """The same facts about label maps, with the values of those of these paths."""
        what = f"{self.of.name} {self.name} labels"
        read = {fact.path: fact for fact in look_at_all(paths, jobs, what, self.of.decode, labels=True)}
        return [read.get(fact.path, fact) for fact in labels]

    def _shows_a_class(self, fact: ImageFacts) -> bool:
        return any(value != self.of.void for value in fact.values or ())

    def _label_folder(self) -> str:
        _, labels = next(iter(self.pairs.values()))
        return labels.parent.relative_to(self.root).as_posix()


def list_splits(
    found: LabelledSet, root: Path, names: Iterable[str], limits: Mapping[str, int | None] | None = None
) -> tuple[dict[str, Split], list[Finding]]:
    """Splits of a data set, or the first N pairs of each, with everything that is wrong about the pairing of their files."""
    splits: dict[str, Split] = {}
    findings: list[Finding] = []
    for name in names:
        pairs, more = found.list_pairs(found, root, name)
        findings += more
        if pairs:
            used = dict(list(pairs.items())[: (limits or {}).get(name)])
            splits[name] = Split(root=root, of=found, name=name, pairs=used, restricted=len(used) < len(pairs))
    return splits, list(dict.fromkeys(findings))  # splits may share a folder of images


def check_splits(found: LabelledSet, root: Path, names: Iterable[str]) -> dict[str, Split]:
    """The splits; ValueError names everything that is missing or unpaired, and images that are in two of them."""
    splits, findings = list_splits(found, root, names)
    refuse([*findings, *shared_names(splits)])
    return splits


def shared_names(splits: Mapping[str, Split]) -> list[Finding]:
    """Images of the validation that are also trained on."""
    test = next((split for split in splits.values() if split.name == split.of.test), None)
    findings = []
    for split in splits.values():
        if test is not None and split is not test:
            shared = sorted(split.pairs.keys() & test.pairs.keys())
            findings += about("wrong", f"images are in both {split.name} and {test.name}", shared, "test on other images")
    return findings
