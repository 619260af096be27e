"""Tables as data: published rows, then a row for every evaluated recipe, each value with its standing."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.result import Result
from eval.tasks import Column
from tables.collect import Evaluated, Measurement, Slot
from tables.comparability import deviations_of
from tables.layout import Layout
from tables.reference import PublishedRow

Status = Literal["published", "measured", "measured-deviating", "measured-subset", "measured-sample"]
"""What a value is worth; only the first two are benchmark numbers.

`measured`: here, on the whole benchmark, by the published protocol. `measured-deviating`: on the whole benchmark, by a protocol that
differs (shortened, say). `measured-subset` and `measured-sample`: on a part of the benchmark or on drawn data, by whatever protocol.
"""

BENCHMARK_NUMBERS: tuple[Status, ...] = ("published", "measured")

VERDICTS: dict[Status, str] = {
    "published": "published",
    "measured": "whole benchmark, published protocol",
    "measured-deviating": "deviating protocol: not a benchmark number",
    "measured-subset": "part of the benchmark: not a benchmark number",
    "measured-sample": "sample data: not a benchmark number",
}

MEASURED_SOURCE = "measured here"

_Slots = Mapping[Slot, tuple[Measurement, ...]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of a table.

    The text has full precision (measured; the mean of several seeds) or is as printed (published), and is empty where the
    result has no value. A measured value has one measurement per seed. `spread` is the standard deviation over two or more
    seeds (n - 1 in the denominator), `interval_95` the interval over resampled items, where a single result states one.
    """

    text: str
    status: Status
    column: Column
    measurements: tuple[Measurement, ...] = ()
    spread: float | None = None
    interval_95: tuple[float, float] | None = None

    @property
    def value(self) -> float | None:
        return float(self.text) if self.text else None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    kind: Literal["published", "measured", "mean", "seed"]
    """`measured`: every value is one result's. `mean`: at least one is the mean over several seeds. `seed`: one of these seeds."""
    descriptors: dict[str, str]
    """What was evaluated; empty where unknown."""
    cells: dict[str, Cell]
    """Column key -> value; a benchmark that was not measured, or is not stated, has no cells."""
    source: str
    note: str
    evaluated: Evaluated | None
    """What a measured row is about, None for a published one."""
    seeds: tuple["Row", ...] = ()
    """The rows of the single seeds behind a row of means."""
    seed_of: tuple[int, int] | None = None
    """For a row of one seed: the seed of the pretraining (-1 where not recorded) and that of the evaluation."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, ready to be rendered."""

    layout: Layout
    rows: list[Row]
    """Published ones in the paper's order, then measured ones by name (by data set first, where the layout has one)."""


def standing(result: Result, benchmark: str) -> Status:
    """What a result's metrics for a benchmark (its key) are worth; results of several benchmarks may be worth less for one."""
    if result.coverage == "sample":
        return "measured-sample"
    if result.coverage == "subset":
        return "measured-subset"
    return "measured-deviating" if deviations_of(result, benchmark) else "measured"


def printed(value: float) -> str:
    """A value as tables print it, to one decimal; a value that prints as another one ties with it."""
    return f"{value:.1f}"


def signed(delta: float) -> str:
    """A difference as tables print it: `+2.0`, `-0.3`, `0.0` for what rounds to it."""
    text = f"{delta:+.1f}"
    return text[1:] if float(text) == 0 else text


def build_table(layout: Layout, published: Sequence[PublishedRow], evaluated: Sequence[Evaluated]) -> Table:
    """Join published rows and measurements; what has no result for any of the columns gets no row."""
    rows = []
    for row in published:
        columns = [column for column in layout.columns if row.values[column.key]]
        cells = {column.key: Cell(text=row.values[column.key], status="published", column=column) for column in columns}
        rows.append(
            Row(kind="published", descriptors=row.descriptors, cells=cells, source=row.source, note=row.note, evaluated=None)
        )
    measured = []
    for one in evaluated:
        datasets = sorted({slot.dataset for slot in one.slots if slot.dataset}) if layout.row_per_dataset else [""]
        for dataset in datasets:
            places = [Slot(benchmark.key, dataset if benchmark.any_dataset else "") for benchmark in layout.benchmarks]
            slots = {place: one.slots[place] for place in places if place in one.slots}
            if slots:
                measured.append((dataset, one.name, _measured_row(layout, one, slots, dataset)))
    return Table(layout=layout, rows=rows + [row for *_, row in sorted(measured, key=lambda place: place[:2])])


def _measured_row(layout: Layout, evaluated: Evaluated, slots: _Slots, dataset: str) -> Row:
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
    seeds = []
    for of_draw in by_draw.values():
        result = next(iter(of_draw.values()))[0].result
        seed = dataclasses.replace(
            row,
            kind="seed",
            descriptors=_descriptors(layout, result.backbone.name, evaluated.architecture, of_draw, dataset),
            cells=_cells(layout, of_draw),
            seed_of=(result.backbone.source.get("seed", -1), result.seed),
        )
        seeds.append(seed)
    return dataclasses.replace(row, seeds=tuple(sorted(seeds, key=lambda seed: (seed.descriptors["method"], seed.seed_of))))


def _descriptors(layout: Layout, name: str, architecture: str, slots: _Slots, dataset: str) -> dict[str, str]:
    results = [one.result for found in slots.values() for one in found]
    epoch = int(results[0].backbone.source["epoch"])
    known = {"method": name, "backbone": architecture, "dataset": dataset}
    # -1: the checkpoint states none.
    known["epochs"] = str(epoch) if epoch >= 0 else ""
    for key in ("knn_features", "linear_features"):
        known[key] = next((str(one.protocol.settings[key]) for one in results if key in one.protocol.settings), "")
    return {descriptor: known.get(descriptor, "") for descriptor in layout.descriptors}


def _cells(layout: Layout, slots: _Slots) -> dict[str, Cell]:
    by_benchmark = {slot.benchmark: found for slot, found in slots.items()}
    return {
        column.key: _measured_cell(column, by_benchmark[column.benchmark])
        for column in layout.columns
        if column.benchmark in by_benchmark and column.metric in by_benchmark[column.benchmark][0].result.metrics
    }


def _measured_cell(column: Column, measurements: tuple[Measurement, ...]) -> Cell:
    metrics = [one.result.metrics[column.metric] for one in measurements]
    values = [float(metric.value) for metric in metrics]
    mean = values[0] if len(values) == 1 else statistics.fmean(values)
    interval = metrics[0].interval_95 if len(metrics) == 1 else []
    return Cell(
        text="" if math.isnan(mean) else repr(mean),
        status=standing(measurements[0].result, column.benchmark),
        column=column,
        measurements=measurements,
        spread=statistics.stdev(values) if len(values) > 1 and not math.isnan(mean) else None,
        interval_95=(interval[0], interval[1]) if interval else None,
    )
