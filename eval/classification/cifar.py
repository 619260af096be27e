"""CIFAR-10 and CIFAR-100 in their own binary layouts.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. A record is its label bytes (CIFAR-10: the class; CIFAR-100: the superclass,
then the class) and 3072 bytes of a 32 x 32 picture: the red plane, the green one, the blue one, each row by row.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from eval.classification.images import LabelledImages, Splits, digest_lines
from eval.provenance import describe_dataset

_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """One of the two sets."""

    name: str
    """For results."""
    train_files: tuple[str, ...]
    """In the order of the records."""
    test_file: str
    """Its presence tells the set."""
    class_file: str
    """Class names, one a line."""
    num_classes: int
    """As published."""
    label_bytes: int
    """Before each picture; the last one is the class."""
    train_size: int
    """Published number of training images."""
    test_size: int
    """Published number of test images."""


LAYOUTS = (
    CifarLayout(
        name="CIFAR-10",
        train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test_file="test_batch.bin",
        class_file="batches.meta.txt",
        num_classes=10,
        label_bytes=1,
        train_size=50_000,
        test_size=10_000,
    ),
    CifarLayout(
        name="CIFAR-100",
        train_files=("train.bin",),
        test_file="test.bin",
        class_file="fine_label_names.txt",
        num_classes=100,
        label_bytes=2,
        train_size=50_000,
        test_size=10_000,
    ),
)


@dataclass(frozen=True)
class CifarImages:
    """The pictures of one split."""

    pixels_N3HW: npt.NDArray[np.uint8]
    """RGB planes."""

    def __getitem__(self, index: int) -> Image.Image:
        """See `ImageSource`."""
        return Image.fromarray(np.ascontiguousarray(self.pixels_N3HW[index].transpose(1, 2, 0)))


def find_layout(root: Path) -> CifarLayout | None:
    """Which CIFAR lies in a folder, if any."""
    return next((layout for layout in LAYOUTS if (root / layout.test_file).is_file()), None)


def read_cifar(root: Path, layout: CifarLayout) -> Splits:
    """Read both splits, fewer than all training batches too.

    Raises:
        ValueError: If a file is absent or no whole number of records, or a label is out of range.
    """
    class_file = root / layout.class_file
    if not class_file.is_file():
        raise ValueError(f"{class_file}: no such file; {layout.name}'s binary archive holds it beside {layout.test_file}")
    classes = class_file.read_text(encoding="utf-8").split()
    if len(classes) != layout.num_classes:
        raise ValueError(f"{class_file}: {len(classes)} names, {layout.name} has {layout.num_classes} classes")
    present = [name for name in layout.train_files if (root / name).is_file()]
    if not present:
        raise ValueError(
            f"{root}: {layout.test_file} without {' or '.join(layout.train_files)}, {layout.name}'s training images"
        )
    return Splits(
        train=_read_split(root, layout, "train", present, classes),
        test=_read_split(root, layout, "test", [layout.test_file], classes),
    )


def _read_split(root: Path, layout: CifarLayout, split: str, files: list[str], classes: list[str]) -> LabelledImages:
    record_bytes = layout.label_bytes + _PIXEL_BYTES
    batches, names = [], []
    for file in files:
        content = np.fromfile(root / file, dtype=np.uint8)
        if content.size == 0 or content.size % record_bytes:
            raise ValueError(f"{root / file}: {content.size} bytes are not a whole number of {record_bytes}-byte records")
        batches.append(content.reshape(-1, record_bytes))
        names += [f"{file}:{row}" for row in range(len(batches[-1]))]
    records = np.concatenate(batches)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= len(classes):
        bad = int(np.argmax(labels >= len(classes)))
        raise ValueError(f"{root}: {names[bad]} has label {labels[bad]}, {layout.name} has classes 0 to {len(classes) - 1}")
    items = [f"{name} {hashlib.sha256(record).hexdigest()}" for name, record in zip(names, records, strict=True)]
    full_size = layout.train_size if split == "train" else layout.test_size
    return LabelledImages(
        source=CifarImages(records[:, layout.label_bytes :].reshape(-1, 3, _SIDE, _SIDE)),
        labels=labels,
        names=names,
        classes=classes,
        fingerprint=describe_dataset(root, layout.name, split, items, full_size),
        content_sha256=digest_lines(items),
    )
