"""Whether a difference between two results is more than chance: a paired bootstrap over the items that both were tested on.

Both results are computed again on the same resampled sets of items (images or sequences, drawn with replacement), and the difference
is significant if the middle 95 % of its values lie on one side of zero. It is the test images' chance alone: not that of training,
which several seeds show.

Shapes: R resampled sets, N items.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95

FEWEST_ITEMS = 6
"""With fewer, even differences of one sign everywhere come about by chance in more than 5 % of the cases: 2 x 2^-5 > 0.05."""

# Sums in another order differ by less.
_ROUNDING = 1e-9

# Bounds the memory of a chunk of resampled sets.
_DRAWS_PER_CHUNK = 2_000_000


class OtherItemsError(ValueError):
    """Two results that were not tested on the same items."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """What a result holds of every single item, so that its figures can be computed on any multiset of them."""

    names: tuple[str, ...]
    """Of the items, unique."""
    figures: Callable[[Array], Mapping[str, Array]]
    """Weights [R, N], how often each item is in each set, in the order of `names` -> metric -> figures [R] in the metric's unit."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The middle 95 % of the resampled differences, in the metric's unit."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""

    @property
    def significant(self) -> bool:
        """Whether zero lies outside, by more than rounding."""
        return self.low > _ROUNDING or self.high < -_ROUNDING


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


def paired_differences(
    first: Sequence[Items], second: Sequence[Items], resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Array]:
    """First minus second on the same resampled sets.

    Args:
        first: One result's items; those of several seeds, whose figures are averaged on each set.
        second: The other's.
        resamples: R.
        seed: Of the draws.

    Returns:
        Metric -> differences [R], for the metrics that all of them have; NaN where a set leaves a figure without value.

    Raises:
        OtherItemsError: If the items are not the same for all.
    """
    names = first[0].names
    for one in (*first, *second):
        if set(one.names) != set(names):
            raise OtherItemsError("the results were not tested on the same items")
    orders = [_positions(one.names, names) for one in (*first, *second)]
    chunks: dict[str, list[Array]] = {}
    for weights_RN in resampled_weights(len(names), resamples, seed):
        figures = [one.figures(weights_RN[:, order]) for one, order in zip((*first, *second), orders, strict=True)]
        for metric in figures[0]:
            if all(metric in one for one in figures):
                ours, theirs = (
                    np.mean([one[metric] for one in side], axis=0) for side in (figures[: len(first)], figures[len(first) :])
                )
                chunks.setdefault(metric, []).append(ours - theirs)
    return {metric: np.concatenate(parts) for metric, parts in chunks.items()}


def paired_bootstrap(first: Sequence[Items], second: Sequence[Items]) -> dict[str, Interval]:
    """The intervals of first minus second by metric; none for fewer than `FEWEST_ITEMS` items, or a metric without value on some set.

    Args:
        first: As for `paired_differences`.
        second: The other's.

    Raises:
        OtherItemsError: As `paired_differences`.
    """
    if len(first[0].names) < FEWEST_ITEMS:
        return {}
    intervals = {}
    for metric, differences_R in paired_differences(first, second).items():
        if not np.isnan(differences_R).any():
            low, high = np.quantile(differences_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            intervals[metric] = Interval(low=float(low), high=float(high))
    return intervals


def _positions(names: Sequence[str], reference: Sequence[str]) -> NDArray[np.int64]:
    """For each of `names` its place in `reference`."""
    places = {name: place for place, name in enumerate(reference)}
    return np.array([places[name] for name in names])
