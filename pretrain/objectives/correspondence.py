"""Which patches of two crops show the same part of the photograph: PW-Self's matching.

arXiv 2310.18651; alijavidani/Local_Global_Representation_Learning 7eeff8c, augment.py. Geometry alone decides: the boxes that the
crops were cut from, and whether they were mirrored.

Shapes: M matches.
"""

import numpy as np
import torch
from torch import Tensor

from pretrain.data.views import CropBox


def matching_patches(first: CropBox, second: CropBox, first_grid: tuple[int, int], second_grid: tuple[int, int]) -> Tensor:
    """One-to-one matches between the patches of two crops of one image.

    The intersection of the boxes is a block of patches in each crop, rounded to whole patches; where the blocks differ in size, rows
    and columns of the larger one are left out evenly. A block that rounding would move past the grid is cut off there, before the
    sizes are compared.

    Args:
        first: Where a crop was cut out, in pixels of the image.
        second: The other crop.
        first_grid: Patches (h, w) of the first crop.
        second_grid: Of the second.

    Returns:
        int64 [M, 2]: 0-based patch of the first crop, of the second; row-major. Empty where the boxes do not meet in a whole patch.
    """
    rows = _match_axis((first.top, first.height), (second.top, second.height), (first_grid[0], second_grid[0]))
    columns = _match_axis((first.left, first.width), (second.left, second.width), (first_grid[1], second_grid[1]))
    blocks = []
    for box, (_, w), row_r, column_c in zip((first, second), (first_grid, second_grid), rows, columns, strict=True):
        column_c = w - 1 - column_c if box.flip else column_c
        blocks.append((row_r[:, None] * w + column_c[None]).reshape(-1))
    return torch.from_numpy(np.stack(blocks, axis=1))


def _match_axis(first: tuple[int, int], second: tuple[int, int], counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Matching patch indices of two intervals (offset, length) along an axis, before mirroring; equally many of both."""
    start = max(first[0], second[0])
    length = min(first[0] + first[1], second[0] + second[1]) - start
    if length <= 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    ranges: list[np.ndarray] = []
    for (offset, size), count in zip((first, second), counts, strict=True):
        begin = round(count * (start - offset) / size)
        ranges.append(np.arange(begin, min(begin + round(count * length / size), count)))
    fewer = min(map(len, ranges))
    # Of the smaller one this picks every index.
    of_first, of_second = (indices[_evenly(len(indices), fewer)] for indices in ranges)
    return of_first, of_second


def _evenly(count: int, chosen: int) -> np.ndarray:
    """`chosen` of `count` indices: the floor of equal steps from the first to the last."""
    if not chosen:
        return np.empty(0, dtype=np.int64)
    return np.floor(np.linspace(0, count - 1, chosen)).astype(np.int64)
