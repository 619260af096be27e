"""Labelled images, whatever they are stored in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.files import text_sha256
from eval.result import Dataset


class ImageSource(Protocol):
    """Where the pictures of a split come from; goes to the loader's worker processes."""

    def __getitem__(self, index: int) -> Image.Image:
        """Decode one picture to RGB.

        Raises:
            ValueError: If it cannot be decoded; names the file.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """One split."""

    source: ImageSource
    """The pictures."""
    labels: npt.NDArray[np.int64]
    """[N], indices into `classes`."""
    names: list[str]
    """[N], what identifies each picture within its set."""
    classes: list[str]
    """Names of the classes; the same in both splits."""
    fingerprint: Dataset
    """For the result."""
    content_sha256: str
    """Changes with every change of a file; for caches. Unlike the fingerprint it may differ between copies of the same data."""

    def __len__(self) -> int:
        """N."""
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A set with its two splits."""

    train: LabelledImages
    """Labelled neighbours, or the images that a probe is trained on."""
    test: LabelledImages
    """The images to classify."""


def digest_lines(lines: list[str]) -> str:
    """One digest of many lines, in their order."""
    return text_sha256("\n".join(lines))


def open_rgb(path: Path) -> Image.Image:
    """Decode an image file to RGB, as torchvision's `ImageFolder` does.

    Raises:
        ValueError: If it cannot be decoded: leaving it out would change the benchmark.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises all of these for damaged files, depending on the format.
        raise ValueError(f"{path}: cannot be decoded ({error}); repair or replace it") from error
