"""Labelled images for the online k-NN: a folder with a folder of images per class.

Shapes: N images.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.images import IMAGE_SUFFIXES
from pretrain.data.views import read_image


@dataclass(frozen=True)
class LabelledImages:
    """Files and their classes."""

    paths: list[Path]
    """Sorted by class, then by path."""
    labels_N: Tensor
    """int64, on the CPU."""

    def __len__(self) -> int:
        """N."""
        return len(self.paths)


def find_labelled(folder: Path, option: str, classes: Sequence[str] | None = None) -> tuple[LabelledImages, list[str]]:
    """List the images of a folder by class, and the classes' names in the order of their labels.

    Args:
        folder: Holds a folder per class, images in it at any depth.
        option: Which option gave the folder, for the error.
        classes: The classes that there may be; None for those of the folder itself.

    Raises:
        ValueError: If it is no such folder, has a class without images, or one that is not among `classes`.
    """
    if not folder.is_dir():
        raise ValueError(f"{option}: {folder} is not a folder; give one with a folder of images per class")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not found:
        raise ValueError(f"{option}: {folder} has no folders; images must lie in one folder per class")
    names = found if classes is None else list(classes)
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(
            f"{option}: {folder} has {len(unknown)} classes of which there are no neighbours, such as {unknown[0]}; "
            "watch.knn_train must have all classes of watch.knn_val"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for name in found:
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not files:
            raise ValueError(
                f"{option}: no image under {folder / name}; suffixes looked for: {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        paths += files
        labels += [names.index(name)] * len(files)
    return LabelledImages(paths, torch.tensor(labels)), names


def first_unreadable(paths: Sequence[Path], threads: int) -> str:
    """Decode images; the first one that cannot be, with the reason, or nothing.

    Args:
        paths: Which.
        threads: How many decode at a time.
    """

    def failure(path: Path) -> str:
        try:
            read_image(path)
        except OSError as error:
            return f"{path} ({error})"
        return ""

    with ThreadPoolExecutor(threads) as pool:
        return next(filter(None, pool.map(failure, paths)), "")
