"""ADE20K as the scene-parsing challenge ships it: what must lie where, and which pairs a run uses.

ADEChallengeData2016/images/{training,validation}/NAME.jpg
ADEChallengeData2016/annotations/{training,validation}/NAME.png      0 = unlabelled, 1 to 150 = classes
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.jpeg import breaks_off, ends_whole
from eval.provenance import describe_dataset
from eval.result import Dataset

NAME = "ADE20K"
ADDRESS = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
FULL_SIZES = {"training": 20210, "validation": 2000}
IMAGE_SUFFIX = ".jpg"
LABEL_SUFFIX = ".png"

_NAMES_SHOWN = 5
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"


class DataError(ValueError):
    """A dataset folder that is missing or incomplete."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The pairs of one split that a run uses."""

    root: Path
    """The folder ADEChallengeData2016."""
    name: str
    """`training` or `validation`."""
    stems: tuple[str, ...]
    """File names without suffix, ascending."""
    restricted: bool
    """Whether pairs were left out on the user's wish."""

    def image(self, stem: str) -> Path:
        """Path of a photograph."""
        return self.root / "images" / self.name / f"{stem}{IMAGE_SUFFIX}"

    def labels(self, stem: str) -> Path:
        """Path of its label map."""
        return self.root / "annotations" / self.name / f"{stem}{LABEL_SUFFIX}"

    def describe(self) -> Dataset:
        """The split's fingerprint: names with the sizes of both files in bytes."""
        items = (f"{stem} {self.image(stem).stat().st_size} {self.labels(stem).stat().st_size}" for stem in self.stems)
        return describe_dataset(self.root, NAME, self.name, items, FULL_SIZES[self.name], self.restricted)


def check_data(root: Path, max_train_images: int | None = None, max_val_images: int | None = None) -> dict[str, Split]:
    """List both splits, after proving that every photograph has its label map and the other way round, and that they are whole.

    A file that breaks off, replaced after the training, would be another input; so it has to be found before.

    Args:
        root: The folder ADEChallengeData2016.
        max_train_images: Use only the first so many training pairs by name; None for all.
        max_val_images: The same for validation.

    Returns:
        `training` and `validation`.

    Raises:
        DataError: Names every folder that is missing or empty, and the unpaired files, with what was expected where.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data is the folder ADEChallengeData2016, unpacked from {ADDRESS}")
    problems: list[str] = []
    splits = {}
    for name, limit in (("training", max_train_images), ("validation", max_val_images)):
        stems = _paired_stems(root, name, problems)
        kept = stems if limit is None else stems[:limit]
        splits[name] = Split(root=root, name=name, stems=tuple(kept), restricted=len(kept) < len(stems))
        if cut_off := [str(path.relative_to(root)) for path in _files(splits[name]) if _is_cut_off(path)]:
            problems.append(f"{len(cut_off)} files break off: {_enumerate(cut_off)}")
    if problems:
        raise DataError(f"{root} is not a complete ADE20K: {'; '.join(problems)}; it comes from {ADDRESS}")
    return splits


def _paired_stems(root: Path, split: str, problems: list[str]) -> list[str]:
    """Ascending stems of a split; what is wrong with it is appended to `problems`."""
    images = _stems(root / "images" / split, IMAGE_SUFFIX, problems)
    labels = _stems(root / "annotations" / split, LABEL_SUFFIX, problems)
    if images is None or labels is None:
        return []
    if missing := sorted(images - labels):
        problems.append(f"annotations/{split} lacks the {LABEL_SUFFIX} of {_enumerate(missing)}")
    if missing := sorted(labels - images):
        problems.append(f"images/{split} lacks the {IMAGE_SUFFIX} of {_enumerate(missing)}")
    return sorted(images & labels)


def _files(split: Split) -> Iterator[Path]:
    for stem in split.stems:
        yield split.image(stem)
        yield split.labels(stem)


def _is_cut_off(path: Path) -> bool:
    """Whether the end of a JPEG or PNG is missing; whatever else is wrong with it shows when it is decoded."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - len(_PNG_END)))
        tail = stream.read()
        if size == 0 or tail == _PNG_END or ends_whole(tail):
            return size == 0
        stream.seek(0)
        content = stream.read()
    return breaks_off(content) or (content.startswith(_PNG_START) and _PNG_END not in content)


def _stems(folder: Path, suffix: str, problems: list[str]) -> set[str] | None:
    relative = "/".join(folder.parts[-2:])
    expected = f"expected {FULL_SIZES[folder.name]} {suffix} files in the full benchmark"
    if not folder.is_dir():
        problems.append(f"no folder {relative} ({expected})")
        return None
    # Hidden files, such as the `._NAME.jpg` that macOS adds, are no images; mmseg leaves them out too.
    stems = {path.stem for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith(".")}
    if not stems:
        problems.append(f"no {suffix} files in {relative} ({expected})")
        return None
    return stems


def _enumerate(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
