"""Feature vectors on disk: written once, in pieces, by any number of processes; read through memory maps.

Shapes: N images, D channels.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.files import text_sha256, write_atomically, write_text_atomically

STORE_VERSION = 1
"""Grows whenever a change can change a feature."""

ROWS_PER_FILE = 2048
_DESCRIPTION_FILE = "complete.json"

Rows = npt.NDArray[np.float32]
"""[rows, D]"""


class FeatureStore:
    """Rows [N, D] in files of `ROWS_PER_FILE`, in a folder whose name is the digest of everything that determines them.

    So a changed input leads to another folder. Each file is whole or absent; the description is written after the last of them.
    """

    def __init__(self, root: Path, inputs: Mapping[str, Any], num_rows: int) -> None:
        """Point at a store, which need not exist yet.

        Args:
            root: Folder of all stores.
            inputs: JSON-ready; everything that determines the rows.
            num_rows: N.
        """
        self.description = json.dumps({"version": STORE_VERSION, "rows": num_rows, **inputs}, sort_keys=True, indent=1) + "\n"
        self.folder = root / text_sha256(self.description)[:32]
        self.num_rows = num_rows

    @property
    def num_files(self) -> int:
        """Number of pieces."""
        return -(-self.num_rows // ROWS_PER_FILE)

    def span(self, number: int) -> range:
        """The rows of one piece."""
        return range(number * ROWS_PER_FILE, min((number + 1) * ROWS_PER_FILE, self.num_rows))

    def is_complete(self) -> bool:
        """Whether every row is there."""
        path = self.folder / _DESCRIPTION_FILE
        return path.is_file() and path.read_text(encoding="utf-8") == self.description

    def has(self, number: int) -> bool:
        """Whether a piece is there."""
        return self._path(number).is_file()

    def write(self, number: int, rows: Rows) -> None:
        """Write one piece atomically."""
        assert len(rows) == len(self.span(number))
        write_atomically(self._path(number), lambda temporary: np.save(temporary, rows))

    def finish(self) -> None:
        """Declare the store complete; by one process, when all have written."""
        absent = [number for number in range(self.num_files) if not self.has(number)]
        if absent:
            raise ValueError(
                f"{self.folder}: {len(absent)} files of features are not there; on several machines --cache must be a shared folder"
            )
        write_text_atomically(self.folder / _DESCRIPTION_FILE, self.description)

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Tensor]]:
        """First row and rows of consecutive blocks of whole pieces, copied to memory one block at a time.

        Args:
            rows_per_block: At least so many rows, except for the last block; rounded up to whole pieces.
        """
        step = -(-rows_per_block // ROWS_PER_FILE)
        for first in range(0, self.num_files, step):
            pieces = [np.asarray(self._map(number)) for number in range(first, min(first + step, self.num_files))]
            yield first * ROWS_PER_FILE, torch.from_numpy(np.concatenate(pieces))

    def rows(self, indices: Tensor) -> Tensor:
        """Rows by index.

        Args:
            indices: [R] int64 on the CPU, in any order.

        Returns:
            [R, D]
        """
        wanted = indices.numpy()
        order = np.argsort(wanted // ROWS_PER_FILE, kind="stable")
        numbers, starts = np.unique(wanted[order] // ROWS_PER_FILE, return_index=True)
        result: Rows | None = None
        for number, places in zip(numbers, np.split(order, starts[1:]), strict=True):
            piece = self._map(int(number))
            if result is None:
                result = np.empty((len(wanted), piece.shape[1]), dtype=np.float32)
            result[places] = piece[wanted[places] % ROWS_PER_FILE]
        assert result is not None, "no rows asked for"
        return torch.from_numpy(result)

    @property
    def width(self) -> int:
        """D; of a store with at least one piece."""
        return int(self._map(0).shape[1])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"

    def _map(self, number: int) -> Rows:
        rows: Rows = np.load(self._path(number), mmap_mode="r")
        return rows
