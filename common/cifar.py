"""The records of CIFAR-10 and CIFAR-100 in their own binary layouts.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. A record is its label bytes (CIFAR-10: the class; CIFAR-100: the superclass,
then the class) and 3072 bytes of a 32 x 32 image: the red plane, the green one, the blue one, each row by row.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE


class CifarLayout(NamedTuple):
    """One of the sets, told by its `test_file`; `class_file` names a class in each line, the sizes are the published ones."""

    name: str
    train_files: tuple[str, ...]
    test_file: str
    class_file: str
    num_classes: int
    label_bytes: int
    train_size: int = 50_000
    test_size: int = 10_000


_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
LAYOUTS = (
    CifarLayout("CIFAR-10", _BATCHES, "test_batch.bin", "batches.meta.txt", num_classes=10, label_bytes=1),
    CifarLayout("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", num_classes=100, label_bytes=2),
)


def find_layout(root: Path) -> CifarLayout | None:
    """Which CIFAR a folder holds, if any."""
    return next((layout for layout in LAYOUTS if (root / layout.test_file).is_file()), None)


def present_train_files(root: Path, layout: CifarLayout) -> list[str]:
    """The training files that a folder holds, in the order of the records: at least one, else ValueError."""
    if present := [name for name in layout.train_files if (root / name).is_file()]:
        return present
    raise ValueError(f"{root}: {layout.test_file} without {' or '.join(layout.train_files)}, {layout.name}'s training images")


def read_records(root: Path, layout: CifarLayout, files: list[str]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Read the records of some files: uint8 [N, label bytes + 3072], and a name for each: its file and place in it."""
    record_bytes = layout.label_bytes + _PIXEL_BYTES
    batches, names = [], []
    for file in files:
        content = np.fromfile(root / file, dtype=np.uint8)
        if content.size == 0 or content.size % record_bytes:
            raise ValueError(f"{root / file}: {content.size} bytes are not a whole number of {record_bytes}-byte records")
        batches.append(content.reshape(-1, record_bytes))
        names += [f"{file}:{row}" for row in range(len(batches[-1]))]
    return np.concatenate(batches), names


def picture_planes(records: npt.NDArray[np.uint8], layout: CifarLayout) -> npt.NDArray[np.uint8]:
    """The images of records: uint8 [N, 3, 32, 32], RGB; a view of the same memory."""
    return records[:, layout.label_bytes :].reshape(-1, 3, _SIDE, _SIDE)
