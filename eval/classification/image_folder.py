"""A folder per class: ImageNet-1k, ImageNet-100 and anybody's own images."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eval.classification.images import LabelledImages, Splits, digest_lines, open_rgb
from eval.provenance import describe_dataset

logger = logging.getLogger(__name__)

# torchvision's `ImageFolder` takes these.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})

IMAGENET_100 = "imagenet-100"
_IMAGENET_100_LIST = Path(__file__).parent / "lists" / "imagenet100.txt"

_WORDNET_ID = re.compile(r"n\d{8}")

IMAGENET = "ImageNet-1k"

PUBLISHED_SIZES = {IMAGENET: (1000, 1_281_167, 50_000), "ImageNet-100": (100, 126_689, 5_000)}
"""(classes, training images, validation images). Sources: ILSVRC-2012; for ImageNet-100 the count of Tian et al.'s classes in it."""

SORT_BY_CLASS = (
    "ImageNet's validation images come unsorted: sort them by the devkit's labels, for example with `valprep.sh` of "
    "soumith/imagenetloader.torch"
)


@dataclass(frozen=True)
class ImageFiles:
    """Pictures in files of their own."""

    paths: list[str]
    """[N]; text, since a million Path objects would take a gigabyte."""

    def __getitem__(self, index: int) -> Image.Image:
        """See `ImageSource`."""
        return open_rgb(Path(self.paths[index]))


def read_class_list(classes: str) -> list[str]:
    """The class folders that an option's value names.

    Args:
        classes: `imagenet-100`, or a file with a folder name at the beginning of each line.

    Raises:
        ValueError: If there is no such file, or it names nothing or one folder twice.
    """
    path = _IMAGENET_100_LIST if classes == IMAGENET_100 else Path(classes)
    if not path.is_file():
        raise ValueError(f"classes={classes}: no such file; give {IMAGENET_100}, or a text file with a folder name per line")
    names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise ValueError(f"classes={classes}: the file names no class")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"classes={classes}: {', '.join(repeated[:3])} twice")
    return sorted(names)


def read_image_folder(root: Path, train_folder: str, test_folder: str, classes: str) -> Splits:
    """List both splits; labels follow the sorted names of the class folders.

    Args:
        root: Holds the two folders.
        train_folder: Below the root.
        test_folder: Below the root.
        classes: See `read_class_list`; empty: every class folder.

    Raises:
        ValueError: If a folder is absent, unsorted or empty, or the two have other classes.
    """
    wanted = read_class_list(classes) if classes else None
    found = {folder: _class_folders(root / folder) for folder in (train_folder, test_folder)}
    if wanted is None:
        difference = sorted(set(found[train_folder]) ^ set(found[test_folder]))
        if difference:
            raise ValueError(
                f"{root}: {train_folder} and {test_folder} must have the same class folders; only one has "
                f"{', '.join(difference[:3])}{' ...' if len(difference) > 3 else ''}"
            )
        wanted = found[train_folder]
    for folder, names in found.items():
        if absent := sorted(set(wanted) - set(names)):
            raise ValueError(f"{root / folder}: {len(absent)} of the {len(wanted)} classes are absent, such as {absent[0]}")
    name = _dataset_name(root, wanted, classes)
    return Splits(
        train=_read_split(root, train_folder, wanted, name, is_train=True),
        test=_read_split(root, test_folder, wanted, name, is_train=False),
    )


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; --data must hold one folder of class folders for training and one for testing "
            "(--train-folder, --test-folder), or CIFAR's binary files"
        )
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise ValueError(f"{folder}: images must lie in class folders; {SORT_BY_CLASS}")
    return names


def _dataset_name(root: Path, wanted: list[str], classes: str) -> str:
    if classes == IMAGENET_100:
        return "ImageNet-100"
    if classes:
        return f"{root.resolve().name}, classes of {Path(classes).name}"
    if len(wanted) == PUBLISHED_SIZES[IMAGENET][0] and all(map(_WORDNET_ID.fullmatch, wanted)):
        return IMAGENET
    return root.resolve().name


def _read_split(root: Path, folder: str, classes: list[str], name: str, is_train: bool) -> LabelledImages:
    paths: list[str] = []
    labels: list[int] = []
    items: list[str] = []
    states: list[str] = []
    for label, class_name in enumerate(classes):
        files = _image_files(root / folder / class_name)
        if not files:
            raise ValueError(
                f"{root / folder / class_name}: no image; suffixes looked for: {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        for path, size, modified in files:
            paths.append(path)
            labels.append(label)
            items.append(f"{os.path.relpath(path, root / folder)} {size}")
            states.append(f"{path} {size} {modified}")
    _, train_size, test_size = PUBLISHED_SIZES.get(name, (0, 0, 0))
    logger.info("%s: %d images of %d classes", root / folder, len(paths), len(classes))
    return LabelledImages(
        source=ImageFiles(paths),
        labels=np.array(labels, dtype=np.int64),
        names=[item.rpartition(" ")[0] for item in items],
        classes=classes,
        fingerprint=describe_dataset(root, name, folder, items, train_size if is_train else test_size),
        content_sha256=digest_lines(states),
    )


def _image_files(folder: Path) -> list[tuple[str, int, int]]:
    """Path, size in bytes and time of change in ns of every image at any depth, sorted by path."""
    files = []
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - a million of them: pathlib takes four times as long
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                state = os.stat(path)  # noqa: PTH116
                files.append((path, state.st_size, state.st_mtime_ns))
    return sorted(files)
