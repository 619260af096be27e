"""Accuracies from the ranks of the right classes, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RESAMPLES = 10_000
_LEVEL = 0.95
_PERCENT = 100

Ranks = npt.NDArray[np.int64]
"""[T]: how many classes come before the right one."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of the images whose right class is among the first."""

    percent: float
    """0 to 100."""
    interval_95: tuple[float, float]
    """Percentiles 2.5 and 97.5 over resampled sets of images, in percent."""


def accuracy(ranks_T: Ranks, top: int, seed: int) -> Accuracy:
    """Top-n accuracy and its percentile bootstrap interval.

    An image drawn with replacement from T is right with probability p, the accuracy, so the number of right ones in a resampled set
    is binomial (T, p): drawing that number is the bootstrap itself, without 10,000 sets of indices.

    Args:
        ranks_T: Not empty.
        top: n.
        seed: Of the resampling.
    """
    total = len(ranks_T)
    right = int((ranks_T < top).sum())
    resampled = np.random.default_rng(seed).binomial(total, right / total, size=_RESAMPLES) / total
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Accuracy(percent=_PERCENT * right / total, interval_95=(_PERCENT * float(low), _PERCENT * float(high)))


def accuracy_per_class(ranks_T: Ranks, labels_T: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float64]:
    """Top-1 accuracy [C] in percent of each class's images; NaN for a class without any."""
    counts_C = np.bincount(labels_T, minlength=num_classes)
    right_C = np.bincount(labels_T[ranks_T < 1], minlength=num_classes)
    result = np.full(num_classes, np.nan)
    np.divide(_PERCENT * right_C, counts_C, out=result, where=counts_C > 0)
    return result
