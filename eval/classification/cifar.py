"""CIFAR-10 and CIFAR-100 with their labels; `common.cifar` has the layouts."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.cifar import CifarLayout, picture_planes, present_train_files, read_records
from eval.classification.images import LabelledImages, Splits, digest_lines
from eval.provenance import describe_dataset


@dataclass(frozen=True)
class CifarImages:
    """The pictures of one split."""

    pixels_N3HW: npt.NDArray[np.uint8]
    """RGB planes."""

    def __getitem__(self, index: int) -> Image.Image:
        """See `ImageSource`."""
        return Image.fromarray(np.ascontiguousarray(self.pixels_N3HW[index].transpose(1, 2, 0)))


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
    train_files = present_train_files(root, layout)
    return Splits(
        train=_read_split(root, layout, "train", train_files, classes),
        test=_read_split(root, layout, "test", [layout.test_file], classes),
    )


def _read_split(root: Path, layout: CifarLayout, split: str, files: list[str], classes: list[str]) -> LabelledImages:
    records, names = read_records(root, layout, files)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= len(classes):
        bad = int(np.argmax(labels >= len(classes)))
        raise ValueError(f"{root}: {names[bad]} has label {labels[bad]}, {layout.name} has classes 0 to {len(classes) - 1}")
    items = [f"{name} {hashlib.sha256(record).hexdigest()}" for name, record in zip(names, records, strict=True)]
    full_size = layout.train_size if split == "train" else layout.test_size
    return LabelledImages(
        source=CifarImages(picture_planes(records, layout)),
        labels=labels,
        names=names,
        classes=classes,
        fingerprint=describe_dataset(root, layout.name, split, items, full_size),
        content_sha256=digest_lines(items),
    )
