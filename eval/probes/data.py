"""Data sets of images with label maps: ADE20K, PASCAL VOC 2012 and Cityscapes; which pairs a split has, and whether all is whole.

ADEChallengeData2016/{images,annotations}/{training,validation}/NAME.{jpg,png}    0 = unlabelled, 1 to 150 = classes
VOCdevkit/VOC2012/{JPEGImages/NAME.jpg,SegmentationClass/NAME.png}                0 to 20 = classes, 255 = void
VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt                          names, one per line
VOCdevkit/VOC2012/{SegmentationClassAug,ImageSets/Segmentation/trainaug.txt}      the same for the split `trainaug`
cityscapes/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png
cityscapes/gtFine/{train,val}/CITY/NAME_gtFine_labelTrainIds.png                  0 to 18 = classes, 255 = void

Loads no torch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.files import text_sha256
from common.images import read_lines, to_rgb
from eval.findings import Finding, about, refuse
from eval.image_checks import (
    PILLOW_ERRORS,
    ImageFacts,
    by_opencv,
    damage_findings,
    label_map,
    list_images,
    look_at_all,
    same_folder_findings,
    size_findings,
)
from eval.probes.classes import ADE20K_CLASSES, CITYSCAPES_CLASSES, VOC2012_CLASSES
from eval.record import describe_dataset
from eval.result import Dataset
from eval.tasks import CITYSCAPES_SET, TASKS, VOC2012_SET

VOID = 255  # in label maps of class indices: pixels that do not count

_LABELS_READ = 200  # label maps per split, spread evenly, whose values are read even where not everything is decoded
_MOST_ABSENT_NAMED = 100

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

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def labels(self) -> str:
        """The labels that its files may hold, in words."""
        return f"0 to {self.num_classes}" if self.void == 0 else f"0 to {self.num_classes - 1} and {self.void}"

    def is_label(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        first = 1 if self.void == 0 else 0
        found: npt.NDArray[np.bool_] = (values == self.void) | ((values >= first) & (values < first + self.num_classes))
        return found

    def read_labels(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The numbers in a label map, uint8 [H, W] for an image of (width, height); ValueError for any that the set does not have."""
        try:
            labels_HW = label_map(path)
        except PILLOW_ERRORS as error:
            raise ValueError(f"{path}: not a readable label map ({error}); get it again from {self.address}") from error
        if labels_HW.shape != size[::-1]:
            raise ValueError(
                f"{path}: label map of shape {labels_HW.shape} for an image of {size[1]} x {size[0]} (rows, columns)"
            )
        if not self.is_label(labels_HW).all():
            found = np.unique(labels_HW[~self.is_label(labels_HW)])[:5]
            raise ValueError(f"{path}: labels {', '.join(map(str, found))}; {self.name}'s are {self.labels}; {self.foreign}")
        return labels_HW.astype(np.uint8)

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
        labels = list(look_at_all(label_paths, jobs, f"{what} label maps", label_map if deep else None, labels=True))
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
        read = {fact.path: fact for fact in look_at_all(paths, jobs, what, label_map, labels=True)}
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
    refuse([*findings, *_shared_names(splits)])
    return splits


def find_set(root: Path) -> LabelledSet:
    """The data set that a folder holds, by its sub-folders; ValueError if it is none."""
    for sign, found in (("JPEGImages", VOC2012), ("gtFine", CITYSCAPES), ("annotations", ADE20K)):
        if (root / sign).is_dir():
            return found
    known = "ADEChallengeData2016 with annotations, VOC2012 with JPEGImages, or cityscapes with gtFine"
    raise ValueError(f"{root}: {'not a known data set' if root.is_dir() else 'no such folder'}; --data is {known}")


def examine_set(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Everything that is wrong with the data set in a folder."""
    found = find_set(folder)
    names = [name for name in found.sizes if name != "trainaug" or (folder / "SegmentationClassAug").is_dir()]
    splits, findings = list_splits(found, folder, names)
    if len(names) < len(found.sizes):
        text = "there is no SegmentationClassAug, which the protocols neco and hummingbird train on"
        findings.append(Finding("note", text, advice=_AUGMENTED))
    findings += _shared_names(splits)
    return findings + [finding for split in splits.values() for finding in split.check_files(deep, jobs)]


def _shared_names(splits: Mapping[str, Split]) -> list[Finding]:
    """Images of the validation that are also trained on."""
    test = next((split for split in splits.values() if split.name == split.of.test), None)
    findings = []
    for split in splits.values():
        if test is not None and split is not test:
            shared = sorted(split.pairs.keys() & test.pairs.keys())
            findings += about("wrong", f"images are in both {split.name} and {test.name}", shared, "test on other images")
    return findings


def _files(found: LabelledSet, root: Path, place: str, suffix: str, full: int) -> tuple[dict[str, Path], list[Finding]]:
    """The files in a folder by their names without suffix, and what is wrong with it."""
    assert suffix in (".jpg", ".png")
    expected = f"(expected {full} {suffix} files in the full benchmark)"
    advice = f"get {{}} from {found.address}"
    if not (root / place).is_dir():
        return {}, [Finding("missing", f"{root} has no folder {place} {expected}", advice=advice.format("it"))]
    files, findings = list_images(root / place, ".jpg" if suffix == ".jpg" else ".png", root)
    if not files:
        text = f"{root} has no {suffix} files in {place} {expected}"
        findings.append(Finding("missing", text, advice=advice.format("them")))
    return files, findings


def _subset(found: LabelledSet, split: str, pairs: Pairs, absent: Iterable[str] = ()) -> list[Finding]:
    full = found.sizes[split]
    text = f"{split}: {len(pairs):,} of {full:,} pairs of image and label map"
    return [Finding("subset", text, tuple(absent))] if len(pairs) != full else []


def _ade_pairs(found: LabelledSet, root: Path, split: str) -> tuple[Pairs, list[Finding]]:
    findings: list[Finding] = []
    if split == found.test:
        for part in ("images", "annotations"):
            findings += same_folder_findings(root, *(f"{part}/{name}" for name in found.sizes))
    full = found.sizes[split]
    images, more = _files(found, root, f"images/{split}", ".jpg", full)
    labels, others = _files(found, root, f"annotations/{split}", ".png", full)
    findings += more + others
    if not images or not labels:
        return {}, findings
    text = f"{root}/annotations/{split} lacks the .png of {len(images.keys() - labels)} images"
    findings += about("missing", text, sorted(images.keys() - labels), f"get them from {found.address}")
    text = f"{root}/images/{split} lacks the .jpg of {len(labels.keys() - images)} label maps"
    findings += about("missing", text, sorted(labels.keys() - images), f"get them from {found.address}")
    pairs = {stem: (images[stem], labels[stem]) for stem in images if stem in labels}
    prefix = "ADE_train" if split == "training" else "ADE_val"
    absent = sorted({f"{prefix}_{number:08d}" for number in range(1, full + 1)} - set(pairs))
    return pairs, findings + _subset(found, split, pairs, absent if len(absent) <= _MOST_ABSENT_NAMED else ())


def _voc_pairs(found: LabelledSet, root: Path, split: str) -> tuple[Pairs, list[Finding]]:
    folder = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
    listing = f"ImageSets/Segmentation/{split}.txt"
    advice = _AUGMENTED if split == "trainaug" else f"get it from {found.address}"
    absent = [place for place in ("JPEGImages", folder) if not (root / place).is_dir()]
    if not (root / listing).is_file():
        absent.append(listing)
    if absent:
        return {}, [Finding("missing", f"{root} has no {' and no '.join(absent)}", advice=advice)]
    images, findings = list_images(root / "JPEGImages", ".jpg", root)
    labels, more = list_images(root / folder, ".png", root)
    names = read_lines(root / listing)
    findings += more
    if len(set(names)) != len(names) or any("/" in name or " " in name for name in names) or not names:
        text = f"{root / listing} must have at least one line, each the name of an image without folder and ending, none twice"
        return {}, [*findings, Finding("wrong", text, advice=advice)]
    for place, files in (("JPEGImages", images), (folder, labels)):
        lacking = [name for name in names if name not in files]
        findings += about("missing", f"{root / place} lacks images that {listing} names", lacking, advice)
    pairs = {name: (images[name], labels[name]) for name in sorted(names) if name in images and name in labels}
    return pairs, findings + _subset(found, split, pairs)


def _cityscapes_pairs(found: LabelledSet, root: Path, split: str) -> tuple[Pairs, list[Finding]]:
    image_end, label_end, raw_end = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"
    findings: list[Finding] = []
    if split == found.test:
        for part in ("leftImg8bit", "gtFine"):
            findings += same_folder_findings(root, f"{part}/train", f"{part}/val")
    files: dict[str, dict[str, Path]] = {image_end: {}, label_end: {}, raw_end: {}}
    for part, ends in (("leftImg8bit", (image_end,)), ("gtFine", (label_end, raw_end))):
        place = root / part / split
        if not place.is_dir():
            expected = f"(expected {found.sizes[split]} images in folders of cities)"
            text = f"{root} has no folder {part}/{split} {expected}"
            findings.append(Finding("missing", text, advice=f"get it from {found.address}"))
            continue
        for path in sorted(place.glob("*/*.png")):
            for end in ends:
                if path.stem.endswith(end) and not path.name.startswith("."):
                    files[end][path.stem.removesuffix(end)] = path
    images, labels, raw = files.values()
    if any(finding.kind == "missing" for finding in findings):
        return {}, findings
    lacking = sorted(images.keys() - labels)
    converted = (
        f"{root}/gtFine/{split} has raw label ids (*{raw_end}.png), but not the 19 train ids (*{label_end}.png) of images"
    )
    findings += about("wrong", converted, [name for name in lacking if name in raw], _CONVERT)
    text = f"{root}/gtFine/{split} lacks *{label_end}.png of images"
    findings += about("missing", text, [name for name in lacking if name not in raw], f"get them from {found.address}")
    text = f"{root}/leftImg8bit/{split} lacks *{image_end}.png of label maps"
    findings += about("missing", text, sorted(labels.keys() - images), f"get them from {found.address}")
    if not images:
        text = f"{root}/leftImg8bit/{split} has no CITY/*{image_end}.png"
        findings.append(Finding("missing", text, advice=f"get them from {found.address}"))
    pairs = {name: (images[name], labels[name]) for name in sorted(images) if name in labels}
    return pairs, findings + _subset(found, split, pairs)


_AUGMENTED = (
    "get SegmentationClassAug and trainaug.txt (into ImageSets/Segmentation), for example by the links of "
    "https://github.com/vpariza/open-hummingbird-eval"
)
_CONVERT = "make them with `CITYSCAPES_DATASET=DATA python -m cityscapesscripts.preparation.createTrainIdLabelImgs`"

ADE20K = LabelledSet(
    name="ADE20K",
    address=TASKS["segmentation"].downloads[0].address,
    sizes={"training": 20210, "validation": 2000},
    train="training",
    test="validation",
    classes=ADE20K_CLASSES,
    void=0,
    void_name="unlabelled",
    foreign="they are of another version of ADE20K, or colour tables",
    list_pairs=_ade_pairs,
)
VOC2012 = LabelledSet(
    name=VOC2012_SET.dataset,
    address=VOC2012_SET.downloads[0].address,
    sizes={"train": 1464, "val": 1449, "trainaug": 10582},
    train="train",
    test="val",
    classes=VOC2012_CLASSES,
    void=255,
    void_name="void",
    foreign="they are not VOC's 20 classes and background",
    list_pairs=_voc_pairs,
)
CITYSCAPES = LabelledSet(
    name=CITYSCAPES_SET.dataset,
    address=f"{CITYSCAPES_SET.downloads[0].address} (demands an account)",
    sizes={"train": 2975, "val": 500},
    train="train",
    test="val",
    classes=CITYSCAPES_CLASSES,
    void=255,
    void_name="void",
    foreign=f"they are raw label ids in files of train ids; {_CONVERT}",
    list_pairs=_cityscapes_pairs,
)
