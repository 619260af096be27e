"""Whether a difference between two results is more than chance: a paired bootstrap over the items that both were tested on.

Both results are computed again on the same resampled sets of items (images or sequences, drawn with replacement), and the difference
is significant if the middle 95 % of its values lie on one side of zero. It is the test images' chance alone: not that of training,
which several seeds show.

Shapes: R resampled sets, N items.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95

FEWEST_ITEMS = 6
"""With fewer, even differences of one sign everywhere come about by chance in more than 5 % of the cases: 2 x 2^-5 > 0.05."""

# Later decimals depend on the order in which a machine adds.
_DECIMALS = 9

# Bounds the memory of a chunk of resampled sets.
_DRAWS_PER_CHUNK = 2_000_000


class OtherItemsError(ValueError):
    """Two results that were not tested on the same items."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """What a result holds of every single item, so that its figures can be computed on any multiset of them."""

    names: tuple[str, ...]
    """Of the items: unique and ascending, so that a draw means the same item in every result."""
    figures: Callable[[Array], Mapping[str, Array]]
    """Weights [R, N], how often each item is in each set, in the order of `names` -> metric -> figures [R] in the metric's unit."""

    def __post_init__(self) -> None:
        """Reject names by which items cannot be matched."""
        if not self.names or any(first >= second for first, second in itertools.pairwise(self.names)):
            raise ValueError("the names of the items are not unique and ascending")


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A result's figures on all resampled sets of its items."""

    names: tuple[str, ...]
    """Of the items."""
    figures: Mapping[str, Array]
    """Metric -> [R]."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The middle 95 % of the resampled differences, in the metric's unit."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""

    @property
    def significant(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def resampled_weights(num_items: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Array]:
    """Weights [R', N] of `resamples` sets of `num_items` items drawn with replacement, in chunks; the same for the same arguments."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_PER_CHUNK // num_items)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn_RN = generator.integers(num_items, size=(rows, num_items))
        drawn_RN += num_items * np.arange(rows)[:, None]
        counts = np.bincount(drawn_RN.ravel(), minlength=rows * num_items)
        yield counts.reshape(rows, num_items).astype(np.float64)


def resample(items: Items, resamples: int = RESAMPLES, seed: int = SEED) -> Resampled:
    """Compute a result's figures on resampled sets of its items; results on the same items are paired by this.

    Args:
        items: N of them.
        resamples: R.
        seed: Of the draws.
    """
    chunks: dict[str, list[Array]] = {}
    for weights_RN in resampled_weights(len(items.names), resamples, seed):
        for metric, figures_R in items.figures(weights_RN).items():
            chunks.setdefault(metric, []).append(figures_R)
    return Resampled(names=items.names, figures={metric: np.concatenate(parts) for metric, parts in chunks.items()})


def paired_bootstrap(first: Sequence[Resampled], second: Sequence[Resampled]) -> dict[str, Interval]:
    """The intervals of first minus second.

    Args:
        first: One result; or those of several seeds, whose figures are averaged on each set.
        second: The other.

    Returns:
        Metric -> interval, for the metrics that all of them have on every set; none for fewer than `FEWEST_ITEMS` items.

    Raises:
        OtherItemsError: If the items are not the same for all.
    """
    every = (*first, *second)
    if any(one.names != every[0].names for one in every):
        raise OtherItemsError("the results were not tested on the same items")
    if len(every[0].names) < FEWEST_ITEMS:
        return {}
    intervals = {}
    for metric in every[0].figures:
        if all(metric in one.figures for one in every):
            ours_R, theirs_R = (np.mean([one.figures[metric] for one in side], axis=0) for side in (first, second))
            if not np.isnan(ours_R - theirs_R).any():
                low, high = np.quantile(ours_R - theirs_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                # + 0.0 makes zero of minus zero.
                low, high = (round(float(end), _DECIMALS) + 0.0 for end in (low, high))
                intervals[metric] = Interval(low=low, high=high)
    return intervals
