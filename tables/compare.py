"""How the values of a table compare: the best, the second-best, and differences from a baseline.

Only comparable values are compared (see `tables.comparability`). Best and second-best are chosen among benchmark numbers; values on
sample data, on a part of a benchmark or under a deviating protocol never compete. A difference is also given between two such values
if data and protocol are the same for both. `tables.significance` adds which differences are more than chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from eval.registry import Column
from tables.comparability import HEADS, benchmark_differences, conditions_of
from tables.rows import BENCHMARK_NUMBERS, Cell, Row, Table, printed

RESAMPLES = 1000
FEWEST_ITEMS = 10  # With fewer items, no test of a difference keeps to its 5 %.


class Interval(NamedTuple):
    """A difference and its uncertainty over the choice of the test items, in the metric's unit (see `tables.significance`)."""

    low: float
    high: float

    @property
    def significant(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How one value compares with the others."""

    rank: Literal["best", "second"] | None = None
    """Its rank among the comparable benchmark numbers of its column (and data set)."""
    delta: float | None = None  # The value minus the baseline's, in the unit of the metric.
    interval: Interval | None = None  # The interval of `delta`, if both results carry their items.
    incomparable: str = ""  # Why a benchmark number does not compete with the others; empty if it does.

    @property
    def significant(self) -> bool:
        return self.interval is not None and self.interval.significant


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The marks of a table."""

    marks: dict[tuple[int, str], Mark] = field(default_factory=dict)
    """(number of the row, key of the column) -> mark; values without a mark are left out."""
    baselines: dict[int, int] = field(default_factory=dict)
    """Number of a row -> number of the row that is its baseline."""

    def mark(self, row: int, key: str) -> Mark:
        return self.marks.get((row, key), Mark())


def compare(table: Table, baseline: str | None = None) -> Comparison:
    """Mark a table's values.

    `baseline` is the method of a published row or the name of a measured one; the rows of the same backbone and data set get their
    difference from it. A measured row is compared with a measured baseline if there is one. No difference is given where several
    rows of that name could be the baseline.
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
                delta=float(cell.text) - float(other.text) if other and _may_be_subtracted(cell, other) else None,
                incomparable=excluded.get(number, ""),
            )
            if mark != Mark():
                marks[number, column.key] = mark
    return Comparison(marks=marks, baselines=baselines)


def names_of(row: Row) -> tuple[str, ...]:
    """The names by which the user may give a row as the baseline: its method and, if it was measured, the names of its runs."""
    return (row.descriptors["method"], *(row.evaluated.run_names if row.evaluated else ()))


def _ranks(table: Table, cells: Mapping[int, Cell]) -> tuple[dict[int, Literal["best", "second"]], dict[int, str]]:
    """The rank of each row that has one, and the reason for each row that does not compete, by the number of the row."""
    ranks: dict[int, Literal["best", "second"]] = {}
    excluded: dict[int, str] = {}
    datasets: dict[str, dict[int, Cell]] = {}
    for number, cell in cells.items():
        if cell.status in BENCHMARK_NUMBERS:
            datasets.setdefault(table.rows[number].descriptors.get("dataset", ""), {})[number] = cell
    for of_dataset in datasets.values():
        excluded |= _excluded(of_dataset)
        competing = {
            number: float(printed(float(cell.text), cell.column))
            for number, cell in of_dataset.items()
            if number not in excluded
        }
        higher_first = next(iter(cells.values())).column.higher_is_better
        best, second = (*sorted(set(competing.values()), reverse=higher_first), None, None)[:2]
        if len(competing) > 1:
            ranks |= dict.fromkeys((number for number, value in competing.items() if value == best), "best")
            ranks |= dict.fromkeys((number for number, value in competing.items() if value == second), "second")
    return ranks, excluded


def _excluded(cells: Mapping[int, Cell]) -> dict[int, str]:
    """The benchmark numbers that do not compete with the others, with the reason, by the number of the row.

    Measured numbers are comparable within classes of equal conditions, whatever the attention heads: benchmark numbers have those of
    the pretraining or of the released configuration. Of several classes, that of the newest protocol competes, then the largest, then
    the first row's.
    """
    excluded: dict[int, str] = {}
    classes: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for number, cell in cells.items():
        if not cell.measurements:
            continue
        conditions = conditions_of(cell.measurements[0].result, cell.column.benchmark)
        classes.setdefault(tuple(sorted((name, value) for name, value in conditions.items() if name != HEADS)), []).append(
            number
        )
    if len(classes) > 1:
        versions = {rows[0]: cells[rows[0]].measurements[0].result.protocol.version for rows in classes.values()}
        chosen = max(classes.values(), key=lambda rows: (versions[rows[0]], len(rows), -rows[0]))
        for number in (number for rows in classes.values() if rows is not chosen for number in rows):
            first, second = (cells[row].measurements[0].result for row in (chosen[0], number))
            found = benchmark_differences(first, second, cells[number].column.benchmark, allowed=[HEADS])
            excluded[number] = ", ".join(f"{field} is {other}, not {competing}" for field, competing, other in found)
    return excluded


def _baselines(table: Table, name: str) -> dict[int, int]:
    """Number of a row -> number of its baseline, where exactly one row can be meant."""

    def network(row: Row) -> list[str | None]:
        return [row.descriptors.get(descriptor) for descriptor in ("backbone", "dataset")]

    named = {number: row for number, row in enumerate(table.rows) if name in names_of(row)}
    found = {}
    for number, row in enumerate(table.rows):
        candidates = [other for other in named if network(named[other]) == network(row)]
        alike = [other for other in candidates if (named[other].evaluated is None) == (row.evaluated is None)]
        chosen = alike or candidates
        if len(chosen) == 1 and number not in named:
            found[number] = chosen[0]
    return found


def _may_be_subtracted(cell: Cell, other: Cell) -> bool:
    """Whether two values of a column are comparable: both are measured alike, or both can stand beside published values."""
    if cell.measurements and other.measurements:
        results = cell.measurements[0].result, other.measurements[0].result
        return not benchmark_differences(*results, cell.column.benchmark)
    return all(value.status in BENCHMARK_NUMBERS for value in (cell, other))


def marked(table: Table, comparison: Comparison) -> Sequence[tuple[Row, list[tuple[Column, Cell | None, Mark]]]]:
    """Every row with its columns, their values (None if not measured) and marks."""
    return [
        (row, [(column, row.cells.get(column.key), comparison.mark(number, column.key)) for column in table.layout.columns])
        for number, row in enumerate(table.rows)
    ]
