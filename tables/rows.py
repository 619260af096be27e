"""Tables as data: published rows, then a row for every evaluated backbone, each figure with its standing."""

import math
from dataclasses import dataclass
from typing import Literal

from eval.result import Result
from tables.collect import Evaluated, Measurement
from tables.layout import Layout, Task
from tables.reference import PublishedRow

Status = Literal["published", "measured", "measured-deviating", "measured-subset", "measured-sample"]
"""Only the first two are benchmark numbers.

`measured`: here, on the whole benchmark, by the published protocol. `measured-deviating`: on the whole benchmark, by a protocol that
differs (shortened, say). `measured-subset` and `measured-sample`: on a part of the benchmark or on drawn data, by whatever protocol.
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure."""

    text: str
    """Full precision (measured) or as printed (published); empty where the result has no value."""
    status: Status
    """Its standing."""
    task: Task
    """Whose result it is from."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    descriptors: dict[str, str]
    """What was evaluated; empty where unknown."""
    cells: dict[str, Cell]
    """Column key -> figure; a task that was not run has no cells."""
    source: str
    """Where a published row stands; `measured here` otherwise."""
    note: str
    """What a reader should know."""
    evaluated: Evaluated | None
    """The backbone of a measured row, None for a published one."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, ready to be rendered."""

    layout: Layout
    """Its columns."""
    rows: list[Row]
    """Published ones in the paper's order, then measured ones by name."""


MEASURED_SOURCE = "measured here"


def standing(result: Result) -> Status:
    """What a result's figures are worth."""
    if result.is_benchmark:
        return "measured"
    match result.coverage:
        case "sample":
            return "measured-sample"
        case "subset":
            return "measured-subset"
        case "full":
            return "measured-deviating"


def build_table(layout: Layout, published: list[PublishedRow], evaluated: list[Evaluated]) -> Table:
    """Join published rows and measurements.

    Args:
        layout: The columns.
        published: The reference rows.
        evaluated: All evaluated backbones; those without a result for any of the columns get no row.
    """
    rows = [_published_row(layout, row) for row in published]
    rows += [_measured_row(layout, one) for one in evaluated if set(one.measurements) & set(layout.tasks)]
    return Table(layout=layout, rows=rows)


def _published_row(layout: Layout, row: PublishedRow) -> Row:
    cells = {column.key: Cell(text=row.values[column.key], status="published", task=column.task) for column in layout.columns}
    return Row(descriptors=row.descriptors, cells=cells, source=row.source, note=row.note, evaluated=None)


def _measured_row(layout: Layout, evaluated: Evaluated) -> Row:
    epoch = int(evaluated.any_result.backbone.source["epoch"])
    known = {
        "method": evaluated.name,
        "backbone": evaluated.architecture,
        # -1: the checkpoint states none.
        "epochs": str(epoch) if epoch >= 0 else "",
    }
    cells = {}
    for column in layout.columns:
        measurement = evaluated.measurements.get(column.task)
        if measurement is not None:
            cells[column.key] = _measured_cell(measurement, column.task, column.metric)
    return Row(
        descriptors={name: known.get(name, "") for name in layout.descriptors},
        cells=cells,
        source=MEASURED_SOURCE,
        note="",
        evaluated=evaluated,
    )


def _measured_cell(measurement: Measurement, task: Task, metric: str) -> Cell:
    value = float(measurement.result.metrics[metric].value)
    text = "" if math.isnan(value) else repr(value)
    return Cell(text=text, status=standing(measurement.result), task=task)
