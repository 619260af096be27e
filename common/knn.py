"""Weighted k-NN classification (Wu et al., CVPR 2018), as DINO evaluates with it.

Shapes: T queries, k neighbours, C classes.

Source: `eval_knn.py` of facebookresearch/dino 7c446df: each of the k nearest training images by cosine similarity votes for its class
with exp(similarity / 0.07). Ties are broken by chance there; here the lower training image is the nearer, and the lower class ranks
higher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.neighbours import Neighbours


def vote(neighbours: Neighbours, bank_labels_N: Tensor, k: int, temperature: float, num_classes: int) -> Tensor:
    """The votes for every class.

    Args:
        neighbours: At least k per query.
        bank_labels_N: int64 classes of the bank's rows.
        k: How many neighbours vote.
        temperature: Similarities are divided by this before the exponential.
        num_classes: C.

    Returns:
        [T, C] float64.
    """
    weights_Tk = (neighbours.similarities_Tk[:, :k] / temperature).exp()
    labels_Tk = bank_labels_N[neighbours.indices_Tk[:, :k]]
    votes_TC = torch.zeros((len(weights_Tk), num_classes), dtype=torch.float64)
    return votes_TC.scatter_add_(1, labels_Tk, weights_Tk)


def rank_of_truth(scores_TC: Tensor, labels_T: Tensor) -> Tensor:
    """How many classes come before the right one; of equal scores the lower class comes first.

    Args:
        scores_TC: Higher is likelier; NaN is never right.
        labels_T: int64, the right classes.

    Returns:
        [T] int64; 0 where the top-1 prediction is right.
    """
    truth_T1 = scores_TC.gather(1, labels_T[:, None])
    before_TC = torch.arange(scores_TC.shape[1], device=scores_TC.device) < labels_T[:, None]
    behind_TC = (scores_TC < truth_T1) | ((scores_TC == truth_T1) & ~before_TC)
    return (~behind_TC).sum(1)


def classify(
    neighbours: Neighbours, bank_labels_N: Tensor, labels_T: Tensor, ks: Sequence[int], temperature: float, num_classes: int
) -> dict[int, Tensor]:
    """The right class's rank for several k: k -> [T]."""
    return {k: rank_of_truth(vote(neighbours, bank_labels_N, k, temperature, num_classes), labels_T) for k in ks}
