"""What a table says about its figures beside each other: best, second, differences from a baseline, and which are significant.

Only figures that may be compared are (`tables.comparability`). Best and second are among benchmark numbers alone: figures on sample
data or a part of a benchmark, or by a deviating protocol, never compete. Differences and their significance are also given between
two of these, where both are on the same data by the same protocol.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tables.bootstrap import Interval, OtherItemsError, Resampled, paired_bootstrap, resample
from tables.collect import Measurement
from tables.comparability import AS_PRETRAINED, HEADS, differences, facts
from tables.items import read_items
from tables.layout import Column
from tables.rows import BENCHMARK_NUMBERS, Cell, Row, Table

logger = logging.getLogger(__name__)

DECIMALS = 1
"""Of printed figures; a figure that prints as another one ties with it."""

Rank = Literal["best", "second"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is said about one figure."""

    rank: Rank | None = None
    """Among the benchmark numbers of its column (and data set) that may be compared."""
    delta: float | None = None
    """Minus the baseline's figure, in the unit of the figure."""
    interval: Interval | None = None
    """Of the difference, where both results carry their items; it is significant if zero lies outside."""
    incomparable: str = ""
    """Why a benchmark number does not compete with the others; empty if it does."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The marks of a table."""

    marks: dict[tuple[int, str], Mark] = field(default_factory=dict)
    """(number of the row, key of the column) -> mark; figures without any are left out."""
    baselines: dict[int, int] = field(default_factory=dict)
    """Number of a row -> that of its baseline."""

    def mark(self, row: int, key: str) -> Mark:
        """The mark of a figure, empty if there is nothing to say."""
        return self.marks.get((row, key), Mark())


def compare(table: Table, baseline: str | None = None) -> Comparison:
    """Mark a table's figures.

    Args:
        table: Published and measured rows.
        baseline: The method (of a published row) or name (of a measured one) from which differences are given, to the rows of the
            same backbone and data set. A measured row is compared with a measured baseline where there is one. Several rows of that
            name that could be meant give none.
    """
    marks: dict[tuple[int, str], Mark] = {}
    baselines = {} if baseline is None else _baselines(table, baseline)
    bootstrap = _Bootstrap()
    for column in table.layout.columns:
        ranks, excluded = _ranks(table, column)
        for number, row in enumerate(table.rows):
            cell = row.cells.get(column.key)
            if cell is None or cell.value is None:
                continue
            delta, interval = None, None
            if number in baselines:
                delta, interval = _difference(cell, table.rows[baselines[number]].cells.get(column.key), bootstrap)
            mark = Mark(rank=ranks.get(number), delta=delta, interval=interval, incomparable=excluded.get(number, ""))
            if mark != Mark():
                marks[number, column.key] = mark
    return Comparison(marks=marks, baselines=baselines)


def names_of(row: Row) -> tuple[str, ...]:
    """What a row may be called by: its method; a row of several runs, by each of their names, too."""
    return (row.descriptors["method"], *(row.evaluated.run_names if row.evaluated else ()))


def printed(value: float) -> str:
    """A figure as tables print it."""
    return f"{value:.{DECIMALS}f}"


def _ranks(table: Table, column: Column) -> tuple[dict[int, Rank], dict[int, str]]:
    """Best and second by row, and the benchmark numbers that do not compete with why."""
    ranks: dict[int, Rank] = {}
    excluded: dict[int, str] = {}
    datasets: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        cell = row.cells.get(column.key)
        if cell is not None and cell.status in BENCHMARK_NUMBERS and cell.value is not None:
            datasets.setdefault(row.descriptors.get("dataset", ""), []).append(number)
    for numbers in datasets.values():
        cells = {number: table.rows[number].cells[column.key] for number in numbers}
        reasons = _excluded(cells)
        competing = {number: printed(_value(cell)) for number, cell in cells.items() if number not in reasons}
        excluded |= reasons
        values = sorted(set(competing.values()), key=float, reverse=True)
        names: tuple[Rank, Rank] = ("best", "second")
        if len(competing) > 1:
            ranks |= {
                number: rank
                for value, rank in zip(values, names, strict=False)
                for number in competing
                if competing[number] == value
            }
    return ranks, excluded


def _excluded(cells: dict[int, Cell]) -> dict[int, str]:
    """Which of some benchmark numbers may not be compared with the others, with why.

    The measured ones fall into classes that may be compared. Beside published figures only such count as keep the attention heads of
    the pretraining. Of several classes the one by the newest protocol competes, then the largest one, then that of the first row.
    """
    published = any(not cell.measurements for cell in cells.values())
    excluded: dict[int, str] = {}
    classes: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for number, cell in cells.items():
        if not cell.measurements:
            continue
        known = facts(cell.measurements[0].result, cell.column.benchmark.key)
        if published and known[HEADS] != AS_PRETRAINED:
            excluded[number] = f"{HEADS}: {known[HEADS]}"
            continue
        classes.setdefault(tuple(sorted(known.items())), []).append(number)
    if len(classes) < 2:
        return excluded
    chosen = max(classes.values(), key=lambda rows: (_version(cells[rows[0]]), len(rows), -rows[0]))
    first = cells[chosen[0]]
    for rows in classes.values():
        for number in rows if rows is not chosen else ():
            excluded[number] = _reason(first, cells[number])
    return excluded


def _version(cell: Cell) -> int:
    return cell.measurements[0].result.protocol.version


def _reason(first: Cell, second: Cell) -> str:
    found = differences(first.measurements[0].result, second.measurements[0].result, first.column.benchmark.key)
    return ", ".join(f"{one.field} is {one.second}, not {one.first}" for one in found)


def _baselines(table: Table, name: str) -> dict[int, int]:
    """For each row the one that it is compared with, where exactly one is meant."""
    called = [number for number, row in enumerate(table.rows) if name in names_of(row)]
    found = {}
    for number, row in enumerate(table.rows):
        candidates = [one for one in called if _same_network(table.rows[one], row)]
        alike = [one for one in candidates if (table.rows[one].evaluated is None) == (row.evaluated is None)]
        chosen = alike or candidates
        if len(chosen) == 1 and number not in called:
            found[number] = chosen[0]
    return found


def _same_network(first: Row, second: Row) -> bool:
    return all(first.descriptors.get(name) == second.descriptors.get(name) for name in ("backbone", "dataset"))


class _Bootstrap:
    """Reads the items of results and resamples them, each once."""

    def __init__(self) -> None:
        self._known: dict[str, Resampled | None] = {}
        self._intervals: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, Interval]] = {}

    def intervals(self, first: Sequence[Measurement], second: Sequence[Measurement]) -> dict[str, Interval]:
        """Intervals of the differences by metric; empty where one carries no items or others than the other one."""
        key = tuple(one.path for one in first), tuple(one.path for one in second)
        if key not in self._intervals:
            self._intervals[key] = self._bootstrap(first, second)
        return self._intervals[key]

    def _bootstrap(self, first: Sequence[Measurement], second: Sequence[Measurement]) -> dict[str, Interval]:
        ours, theirs = ([found for one in side if (found := self._resampled(one)) is not None] for side in (first, second))
        if len(ours) < len(first) or len(theirs) < len(second):
            return {}
        try:
            return paired_bootstrap(ours, theirs)
        except OtherItemsError:
            return {}

    def _resampled(self, measurement: Measurement) -> Resampled | None:
        if measurement.path not in self._known:
            items = read_items(measurement)
            if items is not None:
                logger.info("%s: resampling its %d items", measurement.path, len(items.names))
            self._known[measurement.path] = resample(items) if items else None
        return self._known[measurement.path]


def _difference(cell: Cell, other: Cell | None, bootstrap: _Bootstrap) -> tuple[float | None, Interval | None]:
    """A figure minus its baseline's, and the interval of it; None where they may not be compared or carry no items."""
    if other is None or other.value is None:
        return None, None
    delta = _value(cell) - other.value
    ours, theirs = cell.measurements, other.measurements
    if not ours or not theirs:
        return (delta if _stands_beside_published(cell) and _stands_beside_published(other) else None), None
    key = cell.column.benchmark.key
    if differences(ours[0].result, theirs[0].result, key):
        return None, None
    return delta, bootstrap.intervals(ours, theirs).get(cell.column.metric)


def _stands_beside_published(cell: Cell) -> bool:
    if not cell.measurements:
        return True
    return (
        cell.status in BENCHMARK_NUMBERS
        and facts(cell.measurements[0].result, cell.column.benchmark.key)[HEADS] == AS_PRETRAINED
    )


def _value(cell: Cell) -> float:
    assert cell.value is not None
    return cell.value
