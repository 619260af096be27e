"""How the values of a table compare: the best, the second-best, and differences from a baseline.

Only comparable values are compared (see `tables.comparability`). Best and second-best are chosen among benchmark numbers; values on
sample data, on a part of a benchmark or under a deviating protocol never compete. A difference is also given between two such values
if data and protocol are the same for both. `tables.significance` adds which differences are more than chance.
"""

from collections.abc import Sequence

from tables.comparability import HEADS, benchmark_differences, conditions_of
from tables.rows import BENCHMARK_NUMBERS, Cell, Row, Table, printed

RESAMPLES = 1000
FEWEST_ITEMS = 10  # With fewer items, no test of a difference keeps to its 5 %.


def compare(table: Table, baseline: str | None = None) -> None:
    """Give a table's values their ranks and differences.

    `baseline` is the method of a published row or the name of a measured one; the rows of the same backbone and data set get their
    difference from it. A measured row is compared with a measured baseline if there is one. No difference is given where several
    rows of that name could be the baseline.
    """
    if baseline is not None:
        _find_baselines(table.rows, baseline)
    for column in table.layout.columns:
        competitors: dict[str, list[Cell]] = {}
        for row in table.rows:
            cell = row.cells.get(column.key)
            if cell is None or cell.value is None:
                continue
            if cell.status in BENCHMARK_NUMBERS:
                competitors.setdefault(row.descriptors.get("dataset", ""), []).append(cell)
            other = row.baseline.cells.get(column.key) if row.baseline else None
            if other and other.value is not None and _may_be_subtracted(cell, other):
                cell.delta = cell.value - other.value
        for cells in competitors.values():
            _exclude(cells)
            _rank([cell for cell in cells if not cell.incomparable])


def names_of(row: Row) -> tuple[str, ...]:
    """The names by which the user may give a row as the baseline: its method and, if it was measured, the names of its runs."""
    return (row.descriptors["method"], *(row.evaluated.run_names if row.evaluated else ()))


def _rank(cells: Sequence[Cell]) -> None:
    if len(cells) < 2:
        return
    shown = [float(printed(float(cell.text), cell.column)) for cell in cells]
    descending = sorted(set(shown), reverse=cells[0].column.higher_is_better)
    for cell, value in zip(cells, shown, strict=True):
        if value == descending[0]:
            cell.rank = "best"
        elif value == descending[1]:
            cell.rank = "second"


def _exclude(cells: Sequence[Cell]) -> None:
    """Give the benchmark numbers that do not compete with the others their reason.

    Measured numbers are comparable within classes of equal conditions, whatever the attention heads: benchmark numbers have those of
    the pretraining or of the released configuration. Of several classes, that of the newest protocol competes, then the largest, then
    the first.
    """
    classes: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        if cell.measurements:
            conditions = conditions_of(cell.measurements[0].result, cell.column.benchmark)
            del conditions[HEADS]
            classes.setdefault(tuple(sorted(conditions.items())), []).append(cell)
    if not classes:
        return
    chosen = max(classes.values(), key=lambda found: (found[0].measurements[0].result.protocol.version, len(found)))
    competing = chosen[0].measurements[0].result
    for cell in (cell for found in classes.values() if found is not chosen for cell in found):
        differences = benchmark_differences(competing, cell.measurements[0].result, cell.column.benchmark, allowed=[HEADS])
        cell.incomparable = ", ".join(f"{field} is {own}, not {wanted}" for field, wanted, own in differences)


def _find_baselines(rows: Sequence[Row], name: str) -> None:
    """Set the baseline of each row for which exactly one row of this name can be meant."""

    def network(row: Row) -> list[str | None]:
        return [row.descriptors.get(descriptor) for descriptor in ("backbone", "dataset")]

    named = [row for row in rows if name in names_of(row)]
    for row in rows:
        if name in names_of(row):
            continue
        candidates = [other for other in named if network(other) == network(row)]
        alike = [other for other in candidates if (other.evaluated is None) == (row.evaluated is None)]
        chosen = alike or candidates
        if len(chosen) == 1:
            row.baseline = chosen[0]


def _may_be_subtracted(cell: Cell, other: Cell) -> bool:
    """Whether two values of a column are comparable: both are measured alike, or both can stand beside published values."""
    if cell.measurements and other.measurements:
        results = cell.measurements[0].result, other.measurements[0].result
        return not benchmark_differences(*results, cell.column.benchmark)
    return all(value.status in BENCHMARK_NUMBERS for value in (cell, other))
