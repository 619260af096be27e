"""ADE20K as the scene-parsing challenge ships it: which pairs a run uses, and whether all of it is there and whole.

ADEChallengeData2016/images/{training,validation}/NAME.jpg
ADEChallengeData2016/annotations/{training,validation}/NAME.png      0 = unlabelled, 1 to 150 = classes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.findings import Finding, about, refuse
from eval.image_checks import (
    ImageFacts,
    by_opencv,
    damage_findings,
    label_map,
    list_images,
    look_at_all,
    same_folder_findings,
    size_findings,
)
from eval.record import describe_dataset
from eval.result import Dataset
from eval.tasks import TASKS

NAME = "ADE20K"
ADDRESS = TASKS["segmentation"].downloads[0].address
FULL_SIZES = {"training": 20210, "validation": 2000}
LARGEST_LABEL = 150

_LABELS_READ = 200  # label maps per split, spread evenly, whose values are read even where not everything is decoded
_STEMS = {"training": "ADE_train_{:08d}", "validation": "ADE_val_{:08d}"}
_MOST_ABSENT_NAMED = 100


@dataclass(frozen=True, kw_only=True)
class Split:
    """The pairs of image and label map of one split, `training` or `validation`, that a run uses.

    `pairs` has them by the names that both files share without their suffixes, ascending; `restricted`: pairs were left out on the
    user's wish.
    """

    root: Path
    name: str
    pairs: Mapping[str, tuple[Path, Path]]
    restricted: bool

    def describe(self) -> Dataset:
        """The split's fingerprint: names with the sizes of both files in bytes."""
        items = (f"{stem} {image.stat().st_size} {labels.stat().st_size}" for stem, (image, labels) in self.pairs.items())
        return describe_dataset(self.root, NAME, self.name, items, FULL_SIZES[self.name], self.restricted)

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        """Look at the files that a run uses; `deep` decodes them, in at most so many processes (0: one per core).

        A file that breaks off, replaced after the training, would be another input; so it has to be found before.
        """
        image_paths, label_paths = zip(*self.pairs.values(), strict=True)
        what = f"{NAME} {self.name}"
        images = list(look_at_all(image_paths, jobs, f"{what} images", by_opencv if deep else None))
        labels = list(look_at_all(label_paths, jobs, f"{what} label maps", label_map if deep else None, labels=True))
        whole = [fact.path for fact in labels if not fact.damage]
        if not deep:
            labels = self._read_values(labels, whole[:: max(1, len(whole) // _LABELS_READ)], jobs)
            if not any(map(_shows_a_class, labels)):  # so that the others decide
                labels = self._read_values(labels, whole, jobs)
        foreign = [
            f"{fact.path.relative_to(self.root).as_posix()} ({', '.join(map(str, values[:5]))})"
            for fact in labels
            if (values := [value for value in fact.values or () if not 0 <= value <= LARGEST_LABEL])
        ]
        pairs = ((image, label.size) for image, label in zip(images, labels, strict=True))
        nothing = f"annotations/{self.name}: no label map that is used shows a class, only 0 (unlabelled)"
        text = f"label maps hold labels other than 0 to {LARGEST_LABEL}"
        return [
            *damage_findings([*images, *labels], self.root, f"get them again from {ADDRESS}"),
            *size_findings(pairs, self.root, "their label maps", "they were resized, or are other images"),
            *about("wrong", text, foreign, "they are of another version of ADE20K, or colour tables"),
            *([] if any(map(_shows_a_class, labels)) or not whole else [Finding("wrong", nothing)]),
        ]

    def _read_values(self, labels: list[ImageFacts], paths: list[Path], jobs: int) -> list[ImageFacts]:
        """The same facts about label maps, with the values of those of these paths."""
        read = {fact.path: fact for fact in look_at_all(paths, jobs, f"{NAME} {self.name} labels", label_map, labels=True)}
        return [read.get(fact.path, fact) for fact in labels]


def _shows_a_class(fact: ImageFacts) -> bool:
    return any(fact.values or ())


def check_data(root: Path, max_train_images: int | None = None, max_val_images: int | None = None) -> dict[str, Split]:
    """List both splits, or the first N pairs of each by name, after proving that images and label maps are paired.

    ValueError names every folder that is missing or empty, and the unpaired files, with what was expected where.
    """
    splits, findings = _list_splits(root, {"training": max_train_images, "validation": max_val_images})
    refuse(findings)
    return splits


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Examine all of ADE20K, as `Split.check_files` does a split."""
    splits, findings = _list_splits(folder, {})
    return findings + [finding for split in splits.values() for finding in split.check_files(deep, jobs)]


def _list_splits(root: Path, limits: dict[str, int | None]) -> tuple[dict[str, Split], list[Finding]]:
    if not root.is_dir():
        text = f"{root}: no such folder; the data of segmentation is the folder ADEChallengeData2016, unpacked from {ADDRESS}"
        return {}, [Finding("missing", text)]
    splits: dict[str, Split] = {}
    findings: list[Finding] = []
    for part in ("images", "annotations"):
        findings += same_folder_findings(root, *(f"{part}/{name}" for name in FULL_SIZES))
    for name, full in FULL_SIZES.items():
        images, found = _files(root, f"images/{name}", ".jpg", full)
        labels, more = _files(root, f"annotations/{name}", ".png", full)
        findings += found + more
        if not images or not labels:
            continue
        text = f"{root}/annotations/{name} lacks the .png of {len(images.keys() - labels)} images"
        findings += about("missing", text, sorted(images.keys() - labels), f"get them from {ADDRESS}")
        text = f"{root}/images/{name} lacks the .jpg of {len(labels.keys() - images)} label maps"
        findings += about("missing", text, sorted(labels.keys() - images), f"get them from {ADDRESS}")
        stems = [stem for stem in images if stem in labels]
        absent = sorted({_STEMS[name].format(number) for number in range(1, full + 1)} - set(stems))
        if len(stems) != full:
            named = tuple(absent) if len(absent) <= _MOST_ABSENT_NAMED else ()
            findings.append(Finding("subset", f"{name}: {len(stems):,} of {full:,} pairs of image and label map", named))
        pairs = {stem: (images[stem], labels[stem]) for stem in stems[: limits.get(name)]}
        splits[name] = Split(root=root, name=name, pairs=pairs, restricted=len(pairs) < len(stems))
    return splits, findings


def _files(root: Path, place: str, suffix: Literal[".jpg", ".png"], full: int) -> tuple[dict[str, Path], list[Finding]]:
    """The files in a folder by their names without suffix, and what is wrong with it."""
    expected = f"(expected {full} {suffix} files in the full benchmark)"
    if not (root / place).is_dir():
        return {}, [Finding("missing", f"{root} has no folder {place} {expected}", advice=f"get it from {ADDRESS}")]
    files, findings = list_images(root / place, suffix, root)
    if not files:
        text = f"{root} has no {suffix} files in {place} {expected}"
        findings.append(Finding("missing", text, advice=f"get them from {ADDRESS}"))
    return files, findings
