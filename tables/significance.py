"""Finds which differences from the baseline are more than chance, by the test items (images, sequences) of both results.

A metric that is a mean over items gets a paired sign-flip test: if both systems were equal, the sign of each item's difference would
be arbitrary, so the difference is compared with those under random signs. Other metrics (mIoU, mAcc, average precision) get a paired
bootstrap: both results on the same resampled sets of items, drawn with replacement. `docs/tables.md` says how often each test marks
equal systems. Both cover the choice of the test items, not the randomness of training, which several seeds show.

Shapes: R random draws, N items.
"""

import csv
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.files import check_name, one_line
from eval.tasks import TASKS
from tables.collect import Measurement
from tables.compare import FEWEST_ITEMS, RESAMPLES
from tables.rows import Cell, Interval, Table

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

_SEED = 0
_LEVEL = 0.05
_DECIMALS = 9  # Further ones depend on the order in which a machine adds.
_DRAWS_PER_CHUNK = 2_000_000  # Limits the memory.


class Items(NamedTuple):
    """The single items behind a result."""

    names: tuple[str, ...]
    """Names [N] of the items, ascending, so that a draw means the same item in every result."""
    means: Mapping[str, Array]  # Metric -> values [N], whose mean is the metric; NaN where an item does not count for it.
    resampled: Mapping[str, Array]  # Every other metric -> its values [R] on the resampled sets.


def items_of(cell: Cell) -> list[Items]:
    """The items of each seed of a value; none for published values, or if the result of a seed carries no items."""
    found = [read_items(measurement) for measurement in cell.measurements]
    known = [items for items in found if items is not None]
    return known if len(known) == len(found) else []


def interval_from(cell: Cell, published: float) -> Interval | None:
    """The interval of a measured value minus a published figure, which is taken as exact; None if there are no items, or too few."""
    metric, ours = cell.column.metric, items_of(cell)
    if not ours:
        return None
    means = {metric: np.where(np.isnan(values), np.nan, published) for metric, values in ours[0].means.items()}
    figure = Items(ours[0].names, means, {metric: np.full(RESAMPLES, published)})
    return difference_interval(ours, [figure], metric)


def add_intervals(tables: Sequence[Table]) -> None:
    """Add an interval to every difference between results that carry the same items."""
    logger.info("testing differences from the baseline by the items of the results")
    for row in (row for table in tables for row in table.rows):
        for key, cell in row.cells.items():
            if cell.delta is not None and row.baseline is not None:
                theirs = items_of(row.baseline.cells[key])
                cell.delta_interval = difference_interval(items_of(cell), theirs, cell.column.metric)


@functools.cache  # A result's values are in several tables.
def read_items(measurement: Measurement) -> Items | None:
    """The items behind a result; None if it carries none, or if they cannot be read, which is logged."""
    try:
        for name, file in measurement.result.artefacts.items():
            check_name(file, f"artefact {name}", nested=True)
        found = TASKS[measurement.result.task].load("items", "read_items")(measurement.result, measurement.folder)
        if found is None:
            return None
        names, means, metrics_of = found
        if not names or any(first >= second for first, second in itertools.pairwise(names)):
            raise ValueError("their names are not unique and ascending")
        return Items(names, means, resample(len(names), metrics_of) if metrics_of else {})
    except (OSError, ValueError, LookupError, csv.Error) as error:
        shown = one_line(str(error))
        logger.warning("%s: its items cannot be read, so no difference is marked significant (%s)", measurement.path, shown)
        return None


def resample(num_items: int, metrics_of: Callable[[Array], Mapping[str, Array]]) -> dict[str, Array]:
    """Compute metrics [R] on R resampled sets, from `metrics_of(weights [R', N])`. Equal numbers of items get the same sets."""
    chunks: dict[str, list[Array]] = {}
    for weights_RN in resampled_weights(num_items):
        for metric, values_R in metrics_of(weights_RN).items():
            chunks.setdefault(metric, []).append(values_R)
    return {metric: np.concatenate(parts) for metric, parts in chunks.items()}


def resampled_weights(num_items: int) -> Iterator[Array]:
    """Weights [R', N] of `RESAMPLES` sets of items drawn with replacement, in chunks; always the same for a number of items."""
    generator = np.random.default_rng(_SEED)
    for rows in _chunks(num_items):
        drawn_RN = generator.integers(num_items, size=(rows, num_items))
        drawn_RN += num_items * np.arange(rows)[:, None]
        counts = np.bincount(drawn_RN.ravel(), minlength=rows * num_items)
        yield counts.reshape(rows, num_items).astype(np.float64)


def difference_interval(first: Sequence[Items], second: Sequence[Items], metric: str) -> Interval | None:
    """The interval of first minus second in a metric, averaged over the seeds of a side.

    None if a result lacks the metric, or if the items that count differ or are fewer than `FEWEST_ITEMS`.
    """
    seeds = (*first, *second)
    names = {seed.names for seed in seeds}
    if not first or not second or len(names) > 1 or len(seeds[0].names) < FEWEST_ITEMS:
        return None
    is_mean = all(metric in seed.means for seed in seeds)
    if not is_mean and not all(metric in seed.resampled for seed in seeds):
        return None
    sides = ([(seed.means if is_mean else seed.resampled)[metric] for seed in side] for side in (first, second))
    ours, theirs = (np.mean(values, axis=0) for values in sides)
    if not is_mean:
        return None if np.isnan(ours - theirs).any() else bootstrap_interval(ours - theirs)
    counts_N = ~np.isnan(ours)
    if not np.array_equal(counts_N, ~np.isnan(theirs)) or counts_N.sum() < FEWEST_ITEMS:
        return None
    return sign_flip_interval((ours - theirs)[counts_N])


def sign_flip_interval(differences_N: Array) -> Interval:
    """The mean difference, plus and minus the largest one that chance explains.

    It excludes zero exactly if the two-sided sign-flip test rejects at 5 %: if at most 5 % of the mean differences, the observed one
    among them, are as far from zero as the observed one.
    """
    generator = np.random.default_rng(_SEED)
    num_items = len(differences_N)
    flipped_R = np.concatenate(
        [np.abs((2.0 * generator.integers(2, size=(rows, num_items)) - 1) @ differences_N) for rows in _chunks(num_items)]
    )
    as_far_by_chance = int(_LEVEL * (RESAMPLES + 1))
    limit = np.sort(flipped_R.round(_DECIMALS))[-as_far_by_chance] / num_items
    mean = differences_N.mean()
    return _interval(mean - limit, mean + limit)


def bootstrap_interval(differences_R: Array) -> Interval:
    """The central 95 % of the differences on resampled sets."""
    return _interval(*np.quantile(differences_R, (_LEVEL / 2, 1 - _LEVEL / 2)))


def _interval(low: float, high: float) -> Interval:
    # + 0.0 makes zero of minus zero.
    return Interval(round(float(low), _DECIMALS) + 0.0, round(float(high), _DECIMALS) + 0.0)


def _chunks(num_items: int) -> Iterator[int]:
    """Numbers of draws that sum to `RESAMPLES`."""
    chunk = max(1, _DRAWS_PER_CHUNK // num_items)
    for start in range(0, RESAMPLES, chunk):
        yield min(chunk, RESAMPLES - start)
