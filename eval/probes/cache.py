"""Features that are computed once: arrays of N images in files that many processes write and any run reads.

Shapes: N images, R of them, `shape` of one image's features, such as (D,) or (D, h, w).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.distributed import wait_for_all
from common.files import text_sha256, write_atomically, write_text_atomically

ROWS_PER_FILE = 2048  # of vectors

_STORE_VERSION = 1  # grows whenever a change can change a feature


class FeatureStore:
    """Features [N, *shape] in files, each whole or absent, in a folder named by the digest of what determines them."""

    def __init__(
        self,
        root: Path,
        inputs: Mapping[str, Any],
        num_rows: int,
        shape: tuple[int, ...] | None = None,
        dtype: npt.DTypeLike = np.float32,
        rows_per_file: int = ROWS_PER_FILE,
    ) -> None:
        """`inputs` name whatever changes a feature. Without a shape, these are vectors of a length that the files tell."""
        self.description = json.dumps({"version": _STORE_VERSION, "rows": num_rows, **inputs}, sort_keys=True, indent=1) + "\n"
        self.folder = root / text_sha256(self.description)[:32]
        self.num_rows, self.rows_per_file = num_rows, rows_per_file
        self._shape, self._dtype = shape, np.dtype(dtype)

    @property
    def spans(self) -> list[range]:
        """The images of each file."""
        starts = range(0, self.num_rows, self.rows_per_file)
        return [range(start, min(start + self.rows_per_file, self.num_rows)) for start in starts]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"

    def has(self, number: int) -> bool:
        """Whether a file is there and whole, also after a crash of the machine that wrote it."""
        try:
            rows = np.load(self.path(number), mmap_mode="r")
        except Exception:  # NumPy raises errors of many kinds, also of Python's tokenizer
            return False
        fits = rows.ndim == 2 if self._shape is None else rows.shape[1:] == self._shape
        return rows.dtype == self._dtype and fits and len(rows) == len(self.spans[number])

    def write(self, number: int, rows: npt.NDArray[np.floating[Any]]) -> None:
        write_text_atomically(self.folder / "inputs.json", self.description)  # for whoever wonders what the folder holds
        write_atomically(self.path(number), lambda temporary: np.save(temporary, rows.astype(self._dtype, copy=False)))

    def rows(self, indices: Tensor) -> Tensor:
        """The features [R, *shape] of images by index [R], int64 on the CPU, in any order; only these are read."""
        numbers, places = np.divmod(indices.numpy(), self.rows_per_file)
        shape = np.load(self.path(0), mmap_mode="r").shape[1:]
        result = np.empty((len(indices), *shape), dtype=self._dtype)
        for number in np.unique(numbers).tolist():
            wanted = numbers == number
            result[wanted] = np.load(self.path(number), mmap_mode="r")[places[wanted]]
        return torch.from_numpy(result)

    def require_complete(self) -> None:
        """ValueError on every process where files are not there when all processes have come here."""
        wait_for_all()
        if absent := [str(self.path(number)) for number in range(len(self.spans)) if not self.has(number)]:
            others = f"{len(absent) - 1} more files of features"
            raise ValueError(f"{absent[0]} and {others} are not there; several machines must share --cache")
        wait_for_all()  # so that a process whose machine lacks files stops the others with a message
