"""Nearest neighbours by cosine similarity, and weighted k-NN classification (Wu et al., CVPR 2018) as DINO evaluates with it.

Source: `eval_knn.py` of facebookresearch/dino 7c446df: each of the k nearest training images votes for its class with
exp(similarity / 0.07). Ties are broken by chance there; here the lower training image is the nearer, and the lower class comes first.

Shapes: N rows of the bank, M of one of its blocks, T queries, D channels, k neighbours, C classes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# A similarity is compared as a whole number of steps, far larger than float64's error and far smaller than any difference that
# matters: equal rows are equally near, whatever the order of the sums, the blocks and the device. Together with the row's number, by
# which ties are broken, it fits into 64 bits.
_STEPS = 2**40 - 1
_MOST_ROWS = 2**23
_QUERIES_PER_BLOCK, _ROWS_PER_BLOCK = 256, 4096


class Neighbours(NamedTuple):
    """The nearest rows of some queries, of equally near ones the lower first."""

    similarities_Tk: Tensor  # cosines: float64, falling, rounded to about 1e-12
    indices_Tk: Tensor  # row numbers: int64


def find_neighbours(queries_TD: Tensor, bank: Tensor | Iterable[Tensor], k: int, device: torch.device) -> Neighbours:
    """Find the k nearest rows of a bank for every query on a device, exactly and in one pass over the bank; the result is on the CPU.

    Vectors need not have unit length. The bank has k to 2^23 rows [N, D], else ValueError; where they do not fit in memory together,
    it is blocks of them [M, D].
    """
    units = [_unit(part, device) for part in queries_TD.split(_QUERIES_PER_BLOCK)]
    nearest = [torch.empty((len(part), 0), dtype=torch.int64, device=device) for part in units]
    first = 0
    for rows_MD in bank.split(_ROWS_PER_BLOCK) if isinstance(bank, Tensor) else bank:
        if first + len(rows_MD) > _MOST_ROWS:
            raise ValueError(f"nearest neighbours are sought among at most {_MOST_ROWS} images")
        rows_MD = _unit(rows_MD, device)
        places_M = _MOST_ROWS - 1 - torch.arange(first, first + len(rows_MD), device=device)
        first += len(rows_MD)
        for number, unit_TD in enumerate(units):
            keys_TM = (unit_TD @ rows_MD.T).mul_(_STEPS).round_().long().mul_(_MOST_ROWS).add_(places_M)
            keys_TM = torch.cat([nearest[number], keys_TM], dim=1)
            nearest[number] = keys_TM.topk(min(k, keys_TM.shape[1]), dim=1).values
    keys_Tk = torch.cat(nearest).cpu()
    assert keys_Tk.shape[1] == k, "the bank has fewer rows"
    cosines_Tk = keys_Tk.div(_MOST_ROWS, rounding_mode="floor").double() / _STEPS
    return Neighbours(cosines_Tk, _MOST_ROWS - 1 - keys_Tk % _MOST_ROWS)


def _unit(vectors: Tensor, device: torch.device) -> Tensor:
    return F.normalize(vectors.to(device).double(), dim=1)


def rank_of_truth(scores_TC: Tensor, labels_T: Tensor) -> Tensor:
    """How many classes come before the right one, int64 [T]: 0 where the top-1 prediction is right.

    Higher scores are likelier, NaN is never right, and of equal scores the lower class comes first.
    """
    truth_T1 = scores_TC.gather(1, labels_T[:, None])
    before_TC = torch.arange(scores_TC.shape[1], device=scores_TC.device) < labels_T[:, None]
    behind_TC = (scores_TC < truth_T1) | ((scores_TC == truth_T1) & ~before_TC)
    return (~behind_TC).sum(1)


def classify(
    neighbours: Neighbours, bank_labels_N: Tensor, labels_T: Tensor, ks: Sequence[int], temperature: float, num_classes: int
) -> dict[int, Tensor]:
    """Let the first k neighbours vote, for several k, and rank the right class: k -> [T]; labels are int64."""
    ranks = {}
    for k in ks:
        weights_Tk = (neighbours.similarities_Tk[:, :k] / temperature).exp()
        votes_TC = torch.zeros((len(weights_Tk), num_classes), dtype=torch.float64)
        votes_TC.scatter_add_(1, bank_labels_N[neighbours.indices_Tk[:, :k]], weights_Tk)
        ranks[k] = rank_of_truth(votes_TC, labels_T)
    return ranks
