"""Tables as data: the published rows, then a row for every evaluated recipe, each value with its standing."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from eval.registry import Column
from eval.result import Result
from eval.tasks import BENCHMARKS
from tables.collect import Evaluated, Measurement, Slot
from tables.comparability import deviations_of, footnotes_of
from tables.layout import Layout

Status = Literal["published", "measured", "measured-deviating", "measured-subset", "measured-sample"]
"""What a value is worth, as `VERDICTS` says; one on a part of the benchmark or on drawn data may be by any protocol."""

BENCHMARK_NUMBERS: tuple[Status, ...] = ("published", "measured")

VERDICTS: dict[Status, str] = {
    "published": "published",
    "measured": "whole benchmark, published protocol",
    "measured-deviating": "deviating protocol: not a benchmark number",
    "measured-subset": "part of the benchmark: not a benchmark number",
    "measured-sample": "sample data: not a benchmark number",
}

_Slots = Mapping[Slot, tuple[Measurement, ...]]


class Interval(NamedTuple):
    """A difference and its uncertainty over the choice of the test items, in the metric's unit (see `tables.significance`)."""

    low: float
    high: float

    @property
    def significant(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(kw_only=True)
class Cell:
    """One value of a table, and how it compares with others, which `tables.compare` and `tables.significance` fill in.

    `text` is the value, or the mean of several seeds, in full precision; a published value has the printed digits. It is empty where
    the result has no value. A measured value has one measurement per seed. `spread` is the standard deviation over two or more seeds
    (n - 1 in the denominator); `interval_95` is the interval over resampled items, if a single result states one.
    """

    text: str
    status: Status
    column: Column
    measurements: tuple[Measurement, ...] = ()
    spread: float | None = None
    interval_95: tuple[float, float] | None = None
    rank: Literal["best", "second"] | None = None
    """Its rank among the comparable benchmark numbers of its column (and data set)."""
    incomparable: str = ""  # Why a benchmark number does not compete with the others; empty if it does.
    delta: float | None = None  # The value minus the baseline's, in the unit of the metric.
    delta_interval: Interval | None = None  # Of `delta`, if both results carry their items.

    @property
    def value(self) -> float | None:
        return float(self.text) if self.text else None

    @property
    def star(self) -> str:
        """What pages print behind a difference that is significant."""
        return "*" if self.delta_interval and self.delta_interval.significant else ""


@dataclass(kw_only=True)
class Row:
    """One line of a table."""

    kind: Literal["published", "measured", "mean", "seed"]
    """Each value of a `measured` row is from one result; at least one value of a `mean` row is a mean over seeds, and a `seed` row
    holds the values of one of these seeds."""
    descriptors: dict[str, str]  # What was evaluated; empty where unknown.
    cells: dict[str, Cell]
    """Column key -> value; a benchmark that was not measured, or is not stated, has no cells."""
    source: str = "measured here"
    note: str = ""
    evaluated: Evaluated | None = None  # The results of a measured row; None for a published one.
    seeds: list["Row"] = field(default_factory=list)  # The `seed` rows of a `mean` row.
    seed_of: tuple[int, int] | None = None
    """The seeds of a `seed` row: that of the pretraining (-1 where not recorded) and that of the evaluation."""
    baseline: "Row | None" = None  # From which `tables.compare` takes differences.


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, ready to be rendered."""

    layout: Layout
    rows: list[Row]
    """Published rows in the paper's order. Measured rows, by name (first by data set, if the layout has them), stand after the last
    published one of their backbone, or at the end."""


def standing(result: Result, benchmark: str) -> Status:
    """What a result's metrics for a benchmark (its key) are worth; a result of two classifiers may be worth less for one of them."""
    if result.coverage == "sample":
        return "measured-sample"
    if result.coverage == "subset":
        return "measured-subset"
    return "measured-deviating" if deviations_of(result, benchmark) else "measured"


def slot_of(column: Column, dataset: str) -> Slot:
    """Where a column's figures come from, in a row of this data set, or in one of all data sets."""
    return Slot(column.benchmark, (column.dataset or dataset) if BENCHMARKS[column.benchmark].any_dataset else "")


def in_words(cells: Iterable[Cell], word_of: Callable[[Cell], str]) -> str:
    """What is true of the cells of a row: one word for all benchmarks, or one for each, such as `COCO subset, ADE20K measured`."""
    columns = {cell.column: word_of(cell) for cell in cells}
    words = {column.heading if column.dataset else BENCHMARKS[column.benchmark].title: word for column, word in columns.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{title} {word}" for title, word in words.items())


def standing_word(cell: Cell) -> str:
    """`published`, `measured`, `deviating`, `subset` or `sample`."""
    return cell.status.removeprefix("measured-")


def printed(value: float, column: Column) -> str:
    """A value as tables print it, such as one of percent to one decimal. Values that print alike tie."""
    return f"{value:.{column.decimals}f}"


def signed(delta: float, column: Column) -> str:
    """A difference as tables print it: `+2.0`, `-0.3`, or `0.0` if it rounds to zero."""
    text = f"{delta:+.{column.decimals}f}"
    return text[1:] if float(text) == 0 else text


def build_table(layout: Layout, published: Sequence[Row], evaluated: Sequence[Evaluated]) -> Table:
    """Join published rows and measurements; a recipe without a result for any of the columns gets no row."""
    measured = []
    for recipe in evaluated:
        datasets = sorted({slot.dataset for slot in recipe.slots if slot.dataset}) if layout.row_per_dataset else [""]
        for dataset in datasets:
            places = dict.fromkeys(slot_of(column, dataset) for column in layout.columns)
            slots = {place: recipe.slots[place] for place in places if place in recipe.slots}
            if slots:
                measured.append(_measured_row(layout, recipe, slots, dataset))
    measured.sort(key=lambda own: own.descriptors.get("dataset", ""))  # of one data set, they stay in the order of their names
    last = {row.descriptors["backbone"]: number for number, row in enumerate(published)}
    numbered = [*enumerate(published), *((last.get(own.descriptors["backbone"], len(published)), own) for own in measured)]
    return Table(layout=layout, rows=[one for _, one in sorted(numbered, key=lambda pair: pair[0])])


def _measured_row(layout: Layout, recipe: Evaluated, slots: _Slots, dataset: str) -> Row:
    row = _row(layout, recipe, recipe.name, slots, dataset)
    if all(len(found) == 1 for found in slots.values()):
        return row
    by_draw: dict[tuple[str, int], dict[Slot, tuple[Measurement, ...]]] = {}
    for slot, found in slots.items():
        for measurement in found:
            by_draw.setdefault(measurement.draw, {})[slot] = (measurement,)
    seeds = []
    for of_draw in by_draw.values():
        result = next(iter(of_draw.values()))[0].result
        seed = _row(layout, recipe, result.backbone.name, of_draw, dataset)
        seed.kind, seed.seed_of = "seed", (result.backbone.source.get("seed", -1), result.seed)
        seeds.append(seed)
    row.kind, row.seeds = "mean", sorted(seeds, key=lambda seed: (seed.descriptors["method"], seed.seed_of))
    return row


def _row(layout: Layout, recipe: Evaluated, name: str, slots: _Slots, dataset: str) -> Row:
    results = [measurement.result for found in slots.values() for measurement in found]
    epoch = int(results[0].backbone.source["epoch"])
    # An epoch of -1 means that the checkpoint states none.
    known = {"method": name, "backbone": recipe.architecture, "dataset": dataset, "epochs": str(epoch) if epoch >= 0 else ""}
    known["pretraining_data"] = results[0].backbone.source.get("pretraining_data", "")
    for key in ("knn_features", "linear_features"):
        known[key] = next((str(result.protocol.settings[key]) for result in results if key in result.protocol.settings), "")
    footnotes = {
        f"{BENCHMARKS[slot.benchmark].title}: {text}": None
        for slot, found in slots.items()
        for measurement in found
        for text in footnotes_of(measurement.result, slot.benchmark).values()
    }
    by_column = {column: slots.get(slot_of(column, dataset), ()) for column in layout.columns}
    return Row(
        kind="measured",
        descriptors={descriptor: known.get(descriptor, "") for descriptor in layout.descriptors},
        cells={
            column.key: _measured_cell(column, found)
            for column, found in by_column.items()
            if found and column.metric in found[0].result.metrics
        },
        note="; ".join(footnotes),
        evaluated=recipe,
    )


def _measured_cell(column: Column, measurements: tuple[Measurement, ...]) -> Cell:
    metrics = [measurement.result.metrics[column.metric] for measurement in measurements]
    values = [float(metric.value) for metric in metrics]
    mean = statistics.fmean(values)
    interval = metrics[0].interval_95 if len(metrics) == 1 else []
    return Cell(
        text="" if math.isnan(mean) else repr(mean),
        status=standing(measurements[0].result, column.benchmark),
        column=column,
        measurements=measurements,
        spread=statistics.stdev(values) if len(values) > 1 and not math.isnan(mean) else None,
        interval_95=(interval[0], interval[1]) if interval else None,
    )
