"""Which differences from the baseline are more than chance: a paired bootstrap over the items that both results were tested on.

Both results are computed again on the same resampled sets of items (images or sequences, drawn with replacement), and the difference
is significant if the middle 95 % of its values lie on one side of zero. It is the test images' chance alone: not that of training,
which several seeds show. scipy's bootstrap draws other sets, which would change the recorded marks.

Shapes: R resampled sets, N items.
"""

import csv
import dataclasses
import itertools
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.tasks import TASKS
from tables.collect import Measurement
from tables.compare import FEWEST_ITEMS, RESAMPLES, Comparison, Interval
from tables.rows import Cell, Table

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

SEED = 0
_ENDS = (0.025, 0.975)

# Later decimals depend on the order in which a machine adds.
_DECIMALS = 9

# Bounds the memory of a chunk of resampled sets.
_DRAWS_PER_CHUNK = 2_000_000


class Resampled(NamedTuple):
    """A result's metrics on all resampled sets of its items."""

    names: tuple[str, ...]
    metrics: Mapping[str, Array]
    """Metric -> values [R]."""


def add_intervals(tables: Sequence[Table], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with an interval for every difference between results that carry the same items."""
    logger.info("resampling the items of results that are compared with the baseline")
    resampled: dict[str, Resampled | None] = {}
    intervals: dict[tuple[str, ...], dict[str, Interval]] = {}

    def resample_cell(cell: Cell) -> list[Resampled]:
        """One for each seed; none for published values, nor where a seed's result carries no items."""
        for one in cell.measurements:
            if one.path not in resampled:
                items = read_items(one)
                resampled[one.path] = resample(*items) if items else None
        known = [found for one in cell.measurements if (found := resampled[one.path])]
        return known if len(known) == len(cell.measurements) else []

    found = []
    for table, comparison in zip(tables, comparisons, strict=True):
        marks = dict(comparison.marks)
        for (number, key), mark in comparison.marks.items():
            if mark.delta is not None:
                cell, baseline = (table.rows[row].cells[key] for row in (number, comparison.baselines[number]))
                pair = (*(one.path for one in cell.measurements), "minus", *(one.path for one in baseline.measurements))
                if pair not in intervals:
                    ours, theirs = resample_cell(cell), resample_cell(baseline)
                    intervals[pair] = paired_bootstrap(ours, theirs) if ours and theirs else {}
                marks[number, key] = dataclasses.replace(mark, interval=intervals[pair].get(cell.column.metric))
        found.append(dataclasses.replace(comparison, marks=marks))
    return found


def read_items(measurement: Measurement) -> tuple[tuple[str, ...], Callable[[Array], Mapping[str, Array]]] | None:
    """The items behind a result; None where it carries none, or they cannot be read, which the log says.

    Returns:
        Their names, ascending, so that a draw means the same item in every result; and what computes the metrics on sets of them:
        weights [R, N], how often each item is in each set -> metric -> values [R] in the metric's unit.
    """
    try:
        items = TASKS[measurement.result.task].load("items", "read_items")(measurement.result, measurement.folder)
        if items and (not items[0] or any(first >= second for first, second in itertools.pairwise(items[0]))):
            raise ValueError("their names are not unique and ascending")
    except (OSError, ValueError, KeyError, IndexError, csv.Error, zipfile.BadZipFile) as error:
        message = "%s: its single items cannot be read, so no difference is marked significant (%s)"
        logger.warning(message, measurement.path, error)
        return None
    return (tuple(items[0]), items[1]) if items else None


def resample(
    names: tuple[str, ...], metrics_of: Callable[[Array], Mapping[str, Array]], resamples: int = RESAMPLES, seed: int = SEED
) -> Resampled:
    """Compute a result's metrics on R resampled sets of its items; results on the same items are paired by this."""
    chunks: dict[str, list[Array]] = {}
    for weights_RN in resampled_weights(len(names), resamples, seed):
        for metric, values_R in metrics_of(weights_RN).items():
            chunks.setdefault(metric, []).append(values_R)
    return Resampled(names, {metric: np.concatenate(parts) for metric, parts in chunks.items()})


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


def paired_bootstrap(first: Sequence[Resampled], second: Sequence[Resampled]) -> dict[str, Interval]:
    """The intervals of first minus second, by metric; several results on a side are seeds, whose values are averaged on each set.

    There are intervals for the metrics that all results have on every set; none if the items differ or are fewer than `FEWEST_ITEMS`.
    """
    every = (*first, *second)
    names = every[0].names
    if len(names) < FEWEST_ITEMS or any(one.names != names for one in every):
        return {}
    intervals = {}
    for metric in every[0].metrics:
        if all(metric in one.metrics for one in every):
            ours_R, theirs_R = (np.mean([one.metrics[metric] for one in side], axis=0) for side in (first, second))
            if not np.isnan(ours_R - theirs_R).any():
                # + 0.0 makes zero of minus zero.
                low, high = (round(float(end), _DECIMALS) + 0.0 for end in np.quantile(ours_R - theirs_R, _ENDS))
                intervals[metric] = Interval(low, high)
    return intervals
