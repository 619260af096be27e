"""Joints as labels of patches, back from labels to joints, and PCK.

Source: ajabri/videowalk 047f3f4, `code/data/jhmdb.py`, `code/utils/test_utils.py` (`process_pose`), `code/eval/eval_pck.py`.

Shapes: J joints, T frames, N videos, A thresholds, h x w patches. The 2 is x and y. Channel 0 of labels is "no joint".
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eval.jhmdb.protocol import BOX_SHARE, SIGMA

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.floating]  # those that are found are float32, as published

_SIDE = int(6 * SIGMA) + 1  # cells that a joint covers in each direction, of which the third has its centre


def joint_labels(places_2J: Array, grid: tuple[int, int]) -> Tensor:
    """Labels [h, w, 1 + J] float32 of joints at these places, in patches.

    A joint is a Gaussian of few cells with 1 in one of them. Its first cell is found by truncating towards zero, as published, so
    that one less than 1.5 patches from the left or upper border lies one cell too far inside.
    """
    rows_Jh, columns_Jw = (_gaussians(places_2J[axis], cells) for axis, cells in ((1, grid[0]), (0, grid[1])))
    joints_hwJ = np.einsum("jh,jw->hwj", rows_Jh, columns_Jw)
    nowhere_hw1 = (joints_hwJ == 0).all(axis=2, keepdims=True)
    return torch.from_numpy(np.concatenate([nowhere_hw1, joints_hwJ], axis=2).astype(np.float32))


def _gaussians(places_J: Array, cells: int) -> Array:
    """The factor of one direction [J, cells]."""
    first_J1 = np.trunc(places_J - 3 * SIGMA)[:, None]
    end_J1 = np.trunc(places_J + 3 * SIGMA + 1)[:, None]
    at_cells = np.arange(cells)
    values_Jc = np.exp(-((at_cells - first_J1 - _SIDE // 2) ** 2) / (2 * SIGMA**2))
    factor_Jc: Array = np.where((at_cells >= first_J1) & (at_cells < end_J1), values_Jc, 0)
    return factor_Jc


def joint_places(labels_hwC: Tensor, cells: int) -> Tensor:
    """Where labels show the joints [2, J], in patches: the mean of their strongest cells, weighted; -1 for a joint without any label.

    Of equal cells at the last place, the first counts. It does not synchronise with a GPU.
    """
    width = labels_hwC.shape[1]
    strongest = labels_hwC[..., 1:].flatten(0, 1).sort(dim=0, descending=True, stable=True)
    weights_kJ, places_kJ = strongest.values[:cells], strongest.indices[:cells]
    total_J = weights_kJ.sum(0)
    sums_2J = torch.stack([(weights_kJ * axis_kJ).sum(0) for axis_kJ in (places_kJ % width, places_kJ // width)])
    return torch.where(total_J > 0, sums_2J / total_J, -1.0)


def in_pixels(places_2JT: Places, size: tuple[int, int], grid: tuple[int, int]) -> Places:
    """Places on the grid as pixels of frames of this (height, width), in their precision; -1 stays below 0."""
    scaled_2JT: Places = np.empty_like(places_2JT)
    for axis in (0, 1):
        scaled_2JT[axis] = places_2JT[axis] / grid[1 - axis] * size[1 - axis]
    return scaled_2JT


def joint_distances(truth_2JT: Array, found_2JT: Places) -> Array:
    """Distances [J, T - 1] of all frames but the first, of joints in pixels; NaN of joints that are not found, whose x is below 0.

    The unit is the size of the person, a share of the diagonal of the box around the true places of the joints that are found. Where
    only one is, there is no such box, and its distance is infinite.
    """
    shown_JT = found_2JT[0] >= 0
    truth_2JT = truth_2JT[..., : shown_JT.shape[1]]
    low_2T = np.where(shown_JT, truth_2JT, np.inf).min(axis=1)
    high_2T = np.where(shown_JT, truth_2JT, -np.inf).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit_T = BOX_SHARE * np.linalg.norm(high_2T - low_2T, axis=0)
        distances_JT = np.linalg.norm(found_2JT - truth_2JT, axis=0) / unit_T
    return np.where(shown_JT, np.where(unit_T > 0, distances_JT, np.inf), np.nan)[:, 1:]


def count_right(distances_JT: Array, thresholds: Sequence[float]) -> tuple[Array, Array]:
    """How many places of each joint are at most so far off [A, J], and how many there are [J]."""
    right_AJ = np.array([(distances_JT <= threshold).sum(axis=1) for threshold in thresholds], np.float64)
    return right_AJ, (~np.isnan(distances_JT)).sum(axis=1).astype(np.float64)
