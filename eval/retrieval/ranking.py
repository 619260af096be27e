"""From features to ranks, and from ranks to the metrics of every query.

Source: filipradenovic/revisitop be39832, python/evaluate.py.

Shapes: N images, Q queries, R rows of a block of distractors, D numbers of a feature.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eval.probes.ranking import trapezoid_precision
from eval.retrieval.data import LEVELS, Places

Ranks = npt.NDArray[np.int64]


def rank_images(images_ND: Tensor, queries_QD: Tensor, distractors: Iterable[Tensor] = ()) -> Ranks:
    """The 0-based rank [Q, N] of every image among all and the distractors, for every query, from normalised features.

    Distractors come in blocks [R, D], of which one at a time is in memory. Of equals, images come first, in their order.
    """
    similarities_QN = queries_QD @ images_ND.T
    ranks_QN = similarities_QN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    for block_RD in distractors:
        block_QR = (queries_QD @ block_RD.T).sort(dim=1).values
        ranks_QN += len(block_RD) - torch.searchsorted(block_QR, similarities_QN, right=True)
    return ranks_QN.numpy()


def query_metrics(
    ranks_QN: Ranks, sorts: Sequence[Mapping[str, Places]], ks: Sequence[int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Metric, such as `mAP Hard` or `mP@5 Hard` -> values [Q] in percent; NaN for queries for which nothing is right."""
    columns = ("mAP", *(f"mP@{k}" for k in ks))
    values = {f"{column} {level}": np.full(len(sorts), np.nan) for column in columns for level in LEVELS}
    for query, (ranks_N, of_query) in enumerate(zip(ranks_QN, sorts, strict=True)):
        for level, (right, ignored) in LEVELS.items():
            positives, junk = (np.concatenate([of_query[sort] for sort in group]) for group in (right, ignored))
            if not len(positives):
                continue
            ranks = np.sort(ranks_N[positives])
            ranks -= np.searchsorted(np.sort(ranks_N[junk]), ranks)  # what does not count leaves its place
            values[f"mAP {level}"][query] = 100 * trapezoid_precision(ranks, len(positives))
            for k in ks:
                # Not the plain precision: the list ends at the last positive.
                shown = min(int(ranks[-1]) + 1, k)
                values[f"mP@{k} {level}"][query] = 100 * int((ranks < shown).sum()) / shown
    return values
