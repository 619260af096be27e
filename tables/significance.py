"""Finds which differences from the baseline are more than chance, by a paired bootstrap over the test items of both results.

The metrics of both results are computed on the same resampled sets of items (images or sequences, drawn with replacement). Their
difference is significant if the central 95 % of its values lie on one side of zero. This covers the choice of the test images, not
the randomness of training, which several seeds show. scipy's bootstrap draws other sets, which would change the recorded marks.

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

_SEED = 0
_ENDS = (0.025, 0.975)

# Further decimals depend on the order in which a machine adds.
_DECIMALS = 9

# Limits the memory of a chunk of resampled sets.
_DRAWS_PER_CHUNK = 2_000_000


class Resampled(NamedTuple):
    """A result's metrics on all resampled sets of its items, by the names of the items."""

    names: tuple[str, ...]
    metrics: Mapping[str, Array]
    """Metric -> values [R]."""


def add_intervals(tables: Sequence[Table], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Add an interval to every difference between results that carry the same items."""
    logger.info("resampling the items of results that are compared with the baseline")
    resampled: dict[str, Resampled | None] = {}
    intervals: dict[tuple[tuple[str, ...], ...], dict[str, Interval]] = {}

    def resample_cell(cell: Cell) -> list[Resampled]:
        """The metrics of each seed; none for published values, or if the result of a seed carries no items."""
        for measurement in cell.measurements:
            if measurement.path not in resampled:
                items = read_items(measurement)
                resampled[measurement.path] = resample(*items) if items else None
        known = [found for measurement in cell.measurements if (found := resampled[measurement.path])]
        return known if len(known) == len(cell.measurements) else []

    found = []
    for table, comparison in zip(tables, comparisons, strict=True):
        marks = dict(comparison.marks)
        for (number, key), mark in comparison.marks.items():
            if mark.delta is not None:
                cell, baseline = (table.rows[row].cells[key] for row in (number, comparison.baselines[number]))
                pair = tuple(tuple(measurement.path for measurement in side.measurements) for side in (cell, baseline))
                if pair not in intervals:
                    ours, theirs = resample_cell(cell), resample_cell(baseline)
                    intervals[pair] = paired_bootstrap(ours, theirs) if ours and theirs else {}
                marks[number, key] = dataclasses.replace(mark, interval=intervals[pair].get(cell.column.metric))
        found.append(dataclasses.replace(comparison, marks=marks))
    return found


def read_items(measurement: Measurement) -> tuple[tuple[str, ...], Callable[[Array], Mapping[str, Array]]] | None:
    """The items behind a result; None if it carries none, or if they cannot be read, which is logged.

    Returns:
        The names of the items, ascending, so that a draw means the same item in every result; and a function that computes metrics on
        sets of them: weights [R, N] (how often each item is in each set) -> {metric: values [R] in the metric's unit}.
    """
    try:
        items = TASKS[measurement.result.task].load("items", "read_items")(measurement.result, measurement.folder)
        if items and (not items[0] or any(first >= second for first, second in itertools.pairwise(items[0]))):
            raise ValueError("their names are not unique and ascending")
    except (OSError, ValueError, KeyError, IndexError, csv.Error, zipfile.BadZipFile) as error:
        logger.warning("%s: its items cannot be read, so no difference is marked significant (%s)", measurement.path, error)
        return None
    return (tuple(items[0]), items[1]) if items else None


def resample(names: tuple[str, ...], metrics_of: Callable[[Array], Mapping[str, Array]]) -> Resampled:
    """Compute a result's metrics on R resampled sets of its items. Results with the same items get the same sets."""
    chunks: dict[str, list[Array]] = {}
    for weights_RN in resampled_weights(len(names)):
        for metric, values_R in metrics_of(weights_RN).items():
            chunks.setdefault(metric, []).append(values_R)
    return Resampled(names, {metric: np.concatenate(parts) for metric, parts in chunks.items()})


def resampled_weights(num_items: int) -> Iterator[Array]:
    """Weights [R', N] of `RESAMPLES` sets of items drawn with replacement, in chunks; always the same for a number of items."""
    generator = np.random.default_rng(_SEED)
    chunk = max(1, _DRAWS_PER_CHUNK // num_items)
    for start in range(0, RESAMPLES, chunk):
        rows = min(chunk, RESAMPLES - start)
        drawn_RN = generator.integers(num_items, size=(rows, num_items))
        drawn_RN += num_items * np.arange(rows)[:, None]
        counts = np.bincount(drawn_RN.ravel(), minlength=rows * num_items)
        yield counts.reshape(rows, num_items).astype(np.float64)


def paired_bootstrap(first: Sequence[Resampled], second: Sequence[Resampled]) -> dict[str, Interval]:
    """The intervals of first minus second, by metric; the values of several seeds on a side are averaged on each set.

    There are intervals for the metrics that all results have on every set; none if the items differ or are fewer than `FEWEST_ITEMS`.
    """
    seeds = (*first, *second)
    names = seeds[0].names
    if len(names) < FEWEST_ITEMS or any(seed.names != names for seed in seeds):
        return {}
    intervals = {}
    for metric in seeds[0].metrics:
        if all(metric in seed.metrics for seed in seeds):
            ours_R, theirs_R = (np.mean([seed.metrics[metric] for seed in side], axis=0) for side in (first, second))
            if not np.isnan(ours_R - theirs_R).any():
                # + 0.0 makes zero of minus zero.
                low, high = (round(float(end), _DECIMALS) + 0.0 for end in np.quantile(ours_R - theirs_R, _ENDS))
                intervals[metric] = Interval(low, high)
    return intervals
