"""One box from the keys of an image's patches, by LOST or TokenCut.

Shapes: N = h*w patches, D channels. A box is [left, top, right, bottom] in pixels, right and bottom without.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from eval.object_discovery.protocol import Rules

Mask = npt.NDArray[np.bool_]


def lost(keys_ND: Tensor, rules: Rules) -> tuple[int, Mask]:
    """The seed, a patch with the fewest similar ones, and the patches [N] that are similar to those like it.

    The first of equals is the seed; LOST's own choice among them depends on an unstable sort.
    """
    assert rules.candidates is not None
    similarities_NN = keys_ND @ keys_ND.T
    similar_NN = similarities_NN > rules.least_similarity
    degrees_N = similar_NN.sum(dim=1) - similar_NN.diagonal().int()  # a patch does not count itself
    candidates = degrees_N.argsort(stable=True)[: rules.candidates]
    seed = int(candidates[0])
    alike = candidates[similarities_NN[seed, candidates] > rules.least_similarity]
    return seed, (similarities_NN[alike].sum(dim=0) > 0).numpy()


def cut_vector(keys_ND: Tensor, rules: Rules) -> npt.NDArray[np.float64]:
    """The second eigenvector [N] of the graph of similar patches, of either sign."""
    from scipy.linalg import eigh  # slow to load

    assert rules.weak_edge is not None
    unit_ND = F.normalize(keys_ND, dim=1)
    edges_NN = np.where((unit_ND @ unit_ND.T).numpy() > rules.least_similarity, 1.0, rules.weak_edge)
    degrees_NN = np.diag(edges_NN.sum(axis=1))
    _, vectors_N1 = eigh(degrees_NN - edges_NN, degrees_NN, subset_by_index=[1, 1])
    vector_N: npt.NDArray[np.float64] = vectors_N1[:, 0]
    return vector_N


def tokencut(keys_ND: Tensor, rules: Rules) -> tuple[int, Mask]:
    """The seed, where the eigenvector is farthest from 0, and the patches [N] on its side of the vector's mean."""
    vector_N = cut_vector(keys_ND, rules)
    seed = int(np.abs(vector_N).argmax())
    above_N = vector_N > vector_N.mean()
    return seed, above_N if above_N[seed] else ~above_N


def find_box(keys_ND: Tensor, grid: tuple[int, int], patch: int, size: tuple[int, int], rules: Rules) -> npt.NDArray[np.int64]:
    """The box [4] around the patches that are connected with the seed, side by side, in an image of (height, width)."""
    from scipy.ndimage import label  # slow to load

    seed, chosen_N = (lost if rules.candidates is not None else tokencut)(keys_ND, rules)
    parts_hw: Any = label(chosen_N.reshape(grid))[0]
    rows, columns = np.nonzero(parts_hw == parts_hw.flat[seed])
    box = patch * np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    box[2:] = np.minimum(box[2:], size[::-1])  # the padding is no part of the image
    return box
