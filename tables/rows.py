"""Tables as data: published rows, then a row for every evaluated recipe, each figure with its standing."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.result import Result
from tables.collect import Evaluated, Measurement, Slot
from tables.comparability import deviations_of
from tables.layout import BY_DATASET, Column, Layout
from tables.reference import PublishedRow

Status = Literal["published", "measured", "measured-deviating", "measured-subset", "measured-sample"]
"""Only the first two are benchmark numbers.

`measured`: here, on the whole benchmark, by the published protocol. `measured-deviating`: on the whole benchmark, by a protocol that
differs (shortened, say). `measured-subset` and `measured-sample`: on a part of the benchmark or on drawn data, by whatever protocol.
"""

BENCHMARK_NUMBERS: tuple[Status, ...] = ("published", "measured")

Kind = Literal["published", "measured", "mean", "seed"]
"""`measured`: every figure is one result's. `mean`: at least one is the mean over several seeds. `seed`: one of these seeds."""

MEASURED_SOURCE = "measured here"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure."""

    text: str
    """Full precision (measured; the mean of several seeds) or as printed (published); empty where the result has no value."""
    status: Status
    """Its standing."""
    column: Column
    """Which figure it is."""
    measurements: tuple[Measurement, ...] = ()
    """The results behind it, one per seed; none for a published figure."""
    spread: float | None = None
    """Standard deviation over the seeds (n - 1 in the denominator); None for fewer than two."""
    interval_95: tuple[float, float] | None = None
    """95 % interval over resampled items, where a single result states one."""

    @property
    def value(self) -> float | None:
        """The figure as a number; None where there is none."""
        return float(self.text) if self.text else None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    kind: Kind
    """Where its figures come from."""
    descriptors: dict[str, str]
    """What was evaluated; empty where unknown."""
    cells: dict[str, Cell]
    """Column key -> figure; a benchmark that was not measured, or is not stated, has no cells."""
    source: str
    """Where a published row stands; `measured here` otherwise."""
    note: str
    """What a reader should know."""
    evaluated: Evaluated | None
    """What a measured row is about, None for a published one."""
    seeds: tuple["Row", ...] = ()
    """The rows of the single seeds behind a row of means."""
    seed_of: tuple[int, int] | None = None
    """Of a row of one seed: that of the pretraining (-1 where not recorded) and that of the evaluation."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, ready to be rendered."""

    layout: Layout
    """Its columns."""
    rows: list[Row]
    """Published ones in the paper's order, then measured ones by name (by data set first, where the layout has one)."""


def standing(result: Result, benchmark: str = "") -> Status:
    """What a result's figures for a benchmark (its key) are worth; by default, all of its figures together."""
    match result.coverage:
        case "sample":
            return "measured-sample"
        case "subset":
            return "measured-subset"
        case "full":
            return "measured-deviating" if deviations_of(result, benchmark) else "measured"


def build_table(layout: Layout, published: Sequence[PublishedRow], evaluated: Sequence[Evaluated]) -> Table:
    """Join published rows and measurements.

    Args:
        layout: The columns.
        published: The reference rows.
        evaluated: Everything that was measured; what has no result for any of the columns gets no row.
    """
    rows = [_published_row(layout, row) for row in published]
    by_dataset = any(benchmark in BY_DATASET for benchmark in layout.benchmarks)
    places = [(dataset, one) for one in evaluated for dataset in (one.datasets if by_dataset else ("",))]
    for dataset, one in sorted(places, key=lambda place: (place[0], place[1].name)):
        slots = {slot: one.slots[slot] for slot in _slots(layout, dataset) if slot in one.slots}
        if slots:
            rows.append(_measured_row(layout, one, slots, dataset))
    return Table(layout=layout, rows=rows)


def _slots(layout: Layout, dataset: str) -> list[Slot]:
    return [Slot(benchmark.key, dataset) for benchmark in layout.benchmarks]


def _published_row(layout: Layout, row: PublishedRow) -> Row:
    cells = {
        column.key: Cell(text=row.values[column.key], status="published", column=column)
        for column in layout.columns
        if row.values[column.key]
    }
    return Row(kind="published", descriptors=row.descriptors, cells=cells, source=row.source, note=row.note, evaluated=None)


def _measured_row(layout: Layout, evaluated: Evaluated, slots: dict[Slot, tuple[Measurement, ...]], dataset: str) -> Row:
    row = Row(
        kind="mean" if any(len(found) > 1 for found in slots.values()) else "measured",
        descriptors=_descriptors(layout, evaluated.name, evaluated.architecture, slots, dataset),
        cells=_cells(layout, slots),
        source=MEASURED_SOURCE,
        note="",
        evaluated=evaluated,
    )
    if row.kind == "measured":
        return row
    by_draw: dict[tuple[str, int], dict[Slot, tuple[Measurement, ...]]] = {}
    for slot, found in slots.items():
        for one in found:
            by_draw.setdefault(one.draw, {})[slot] = (one,)
    seeds = [_seed_row(layout, row, of_draw, dataset) for of_draw in by_draw.values()]
    return dataclasses.replace(row, seeds=tuple(sorted(seeds, key=lambda seed: (seed.descriptors["method"], seed.seed_of))))


def _seed_row(layout: Layout, row: Row, slots: dict[Slot, tuple[Measurement, ...]], dataset: str) -> Row:
    result = next(iter(slots.values()))[0].result
    assert row.evaluated is not None
    return dataclasses.replace(
        row,
        kind="seed",
        descriptors=_descriptors(layout, result.backbone.name, row.evaluated.architecture, slots, dataset),
        cells=_cells(layout, slots),
        seed_of=(result.backbone.source.get("seed", -1), result.seed),
    )


def _descriptors(
    layout: Layout, name: str, architecture: str, slots: dict[Slot, tuple[Measurement, ...]], dataset: str
) -> dict[str, str]:
    results = [one.result for found in slots.values() for one in found]
    epoch = int(results[0].backbone.source["epoch"])
    features = {
        key: next((str(result.protocol.settings[key]) for result in results if key in result.protocol.settings), "")
        for key in ("knn_features", "linear_features")
    }
    known = {
        "method": name,
        "backbone": architecture,
        # -1: the checkpoint states none.
        "epochs": str(epoch) if epoch >= 0 else "",
        "dataset": dataset,
        **features,
    }
    return {descriptor: known.get(descriptor, "") for descriptor in layout.descriptors}


def _cells(layout: Layout, slots: dict[Slot, tuple[Measurement, ...]]) -> dict[str, Cell]:
    cells = {}
    for slot, found in slots.items():
        for column in layout.columns:
            if column.benchmark.key != slot.benchmark or column.metric not in found[0].result.metrics:
                continue
            cells[column.key] = _measured_cell(column, found)
    # In the order of the columns.
    return {column.key: cells[column.key] for column in layout.columns if column.key in cells}


def _measured_cell(column: Column, measurements: tuple[Measurement, ...]) -> Cell:
    metrics = [one.result.metrics[column.metric] for one in measurements]
    values = [float(metric.value) for metric in metrics]
    mean = values[0] if len(values) == 1 else statistics.fmean(values)
    interval = metrics[0].interval_95 if len(metrics) == 1 else []
    return Cell(
        text="" if math.isnan(mean) else repr(mean),
        status=standing(measurements[0].result, column.benchmark.key),
        column=column,
        measurements=measurements,
        spread=statistics.stdev(values) if len(values) > 1 and not math.isnan(mean) else None,
        interval_95=(interval[0], interval[1]) if interval else None,
    )
