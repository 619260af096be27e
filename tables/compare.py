"""What a table says about its values beside each other: best, second, and differences from a baseline.

Only values that may be compared are (`tables.comparability`). Best and second are among benchmark numbers alone: values on sample
data or a part of a benchmark, or by a deviating protocol, never compete. Differences are also given between two of these, where both
are on the same data by the same protocol. `tables.significance` adds which differences are more than chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from eval.tasks import Column
from tables.comparability import AS_PRETRAINED, HEADS, benchmark_differences, conditions_of, heads_of
from tables.rows import BENCHMARK_NUMBERS, Cell, Row, Table, printed

RESAMPLES = 1000
FEWEST_ITEMS = 6
"""With fewer, even differences of one sign everywhere come about by chance in more than 5 % of the cases: 2 x 2^-5 > 0.05."""


class Interval(NamedTuple):
    """The middle 95 % of a difference over resampled sets of the items, in the metric's unit."""

    low: float
    high: float

    @property
    def significant(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is said about one value."""

    rank: Literal["best", "second"] | None = None
    """Among the benchmark numbers of its column (and data set) that may be compared."""
    delta: float | None = None
    """The value minus the baseline's, in the unit of the metric."""
    interval: Interval | None = None
    """Of the difference, where both results carry their items."""
    incomparable: str = ""
    """Why a benchmark number does not compete with the others; empty if it does."""

    @property
    def significant(self) -> bool:
        return self.interval is not None and self.interval.significant


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The marks of a table, and the number of the baseline's row by that of a row."""

    marks: dict[tuple[int, str], Mark] = field(default_factory=dict)
    """(number of the row, key of the column) -> mark; values without any are left out."""
    baselines: dict[int, int] = field(default_factory=dict)

    def mark(self, row: int, key: str) -> Mark:
        """The mark of a value, empty if there is nothing to say."""
        return self.marks.get((row, key), Mark())


def compare(table: Table, baseline: str | None = None) -> Comparison:
    """Mark a table's values.

    `baseline` is the method of a published row, or the name of a measured one, from which differences are given to the rows of
    the same backbone and data set. A measured row is compared with a measured baseline where there is one. Several rows of that
    name that could be meant give none.
    """
    marks: dict[tuple[int, str], Mark] = {}
    baselines = {} if baseline is None else _baselines(table, baseline)
    for column in table.layout.columns:
        cells = {number: row.cells[column.key] for number, row in enumerate(table.rows) if column.key in row.cells}
        cells = {number: cell for number, cell in cells.items() if cell.value is not None}
        ranks, excluded = _ranks(table, cells)
        for number, cell in cells.items():
            other = cells.get(baselines[number]) if number in baselines else None
            mark = Mark(
                rank=ranks.get(number),
                delta=_value(cell) - _value(other) if other and _may_be_subtracted(cell, other) else None,
                incomparable=excluded.get(number, ""),
            )
            if mark != Mark():
                marks[number, column.key] = mark
    return Comparison(marks=marks, baselines=baselines)


def names_of(row: Row) -> tuple[str, ...]:
    """What a row may be called by: its method; a row of several runs, by each of their names, too."""
    return (row.descriptors["method"], *(row.evaluated.run_names if row.evaluated else ()))


def _ranks(table: Table, cells: Mapping[int, Cell]) -> tuple[dict[int, Literal["best", "second"]], dict[int, str]]:
    """Best and second by row, and the benchmark numbers that do not compete with why."""
    ranks: dict[int, Literal["best", "second"]] = {}
    excluded: dict[int, str] = {}
    datasets: dict[str, dict[int, Cell]] = {}
    for number, cell in cells.items():
        if cell.status in BENCHMARK_NUMBERS:
            datasets.setdefault(table.rows[number].descriptors.get("dataset", ""), {})[number] = cell
    for of_dataset in datasets.values():
        reasons = _excluded(of_dataset)
        excluded |= reasons
        competing = {number: float(printed(_value(cell))) for number, cell in of_dataset.items() if number not in reasons}
        first, second = (*sorted(set(competing.values()), reverse=True), None, None)[:2]
        for number, value in competing.items() if len(competing) > 1 else ():
            if value in (first, second):
                ranks[number] = "best" if value == first else "second"
    return ranks, excluded


def _excluded(cells: Mapping[int, Cell]) -> dict[int, str]:
    """Which of some benchmark numbers may not be compared with the others, with why.

    The measured ones fall into classes that may be compared. Beside published values only such count as keep the attention heads of
    the pretraining. Of several classes the one by the newest protocol competes, then the largest one, then that of the first row.
    """
    published = any(not cell.measurements for cell in cells.values())
    excluded: dict[int, str] = {}
    classes: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for number, cell in cells.items():
        if not cell.measurements:
            continue
        conditions = conditions_of(cell.measurements[0].result, cell.column.benchmark)
        if published and conditions[HEADS] != AS_PRETRAINED:
            excluded[number] = f"{HEADS}: {conditions[HEADS]}"
        else:
            classes.setdefault(tuple(sorted(conditions.items())), []).append(number)
    if len(classes) > 1:
        versions = {rows[0]: cells[rows[0]].measurements[0].result.protocol.version for rows in classes.values()}
        chosen = max(classes.values(), key=lambda rows: (versions[rows[0]], len(rows), -rows[0]))
        for number in (number for rows in classes.values() if rows is not chosen for number in rows):
            first, second = (cells[row].measurements[0].result for row in (chosen[0], number))
            found = benchmark_differences(first, second, cells[number].column.benchmark)
            excluded[number] = ", ".join(f"{one.field} is {one.second}, not {one.first}" for one in found)
    return excluded


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


def _may_be_subtracted(cell: Cell, other: Cell) -> bool:
    """Whether two values of one column may be compared: both measured alike, or both fit to stand beside published ones."""
    if cell.measurements and other.measurements:
        results = cell.measurements[0].result, other.measurements[0].result
        return not benchmark_differences(*results, cell.column.benchmark)
    return all(
        one.status in BENCHMARK_NUMBERS and all(heads_of(found.result) == AS_PRETRAINED for found in one.measurements[:1])
        for one in (cell, other)
    )


def _value(cell: Cell) -> float:
    assert cell.value is not None
    return cell.value


def marked(table: Table, comparison: Comparison) -> Sequence[tuple[Row, list[tuple[Column, Cell | None, Mark]]]]:
    """Every row with its columns, their values and marks; None for what was not measured."""
    return [
        (row, [(column, row.cells.get(column.key), comparison.mark(number, column.key)) for column in table.layout.columns])
        for number, row in enumerate(table.rows)
    ]
