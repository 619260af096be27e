"""A table as CSV: full precision, and beside every figure its standing.

Columns: `row`, the kind of the row (`tables.rows.Kind`: a row of means is followed by one for each of its seeds); the descriptors;
for each figure `KEY`, `KEY_status`, `KEY_spread` (standard deviation over the seeds), in tables with rows per data set `KEY_low` and
`KEY_high` (95 % interval over resampled items), and with a baseline `KEY_delta`, `KEY_delta_low` and `KEY_delta_high` (minus the
baseline's figure, and the 95 % interval of that); for each benchmark `NAME_items` (images or sequences of the test split),
`NAME_deviations` from the published protocol (JSON, setting -> [published, used]), `NAME_seeds` (how many results) and `NAME_result`
(paths below the folder of runs, separated by `; `), all empty in published rows; `pretraining_seed` (-1: not recorded) and
`evaluation_seed` of a row of one seed; `backbone_sha256`, empty where several seeds have several; `source`; `note`.
"""

import csv
import io
import json

from tables.collect import Measurement
from tables.comparability import deviations_of
from tables.comparison import Comparison, Mark
from tables.layout import BY_DATASET, Benchmark, Column
from tables.rows import Row, Table


def render_csv(table: Table, comparison: Comparison, with_baseline: bool = False) -> str:
    """The whole file, with Unix line ends.

    Args:
        table: What to write.
        comparison: Its marks.
        with_baseline: Whether there are columns for differences from a baseline.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_header(table, with_baseline))
    for number, row in enumerate(table.rows):
        marks = {column.key: comparison.mark(number, column.key) for column in table.layout.columns}
        writer.writerow(_cells(table, row, marks, with_baseline))
        for seed in row.seeds:
            writer.writerow(_cells(table, seed, {}, with_baseline))
    return stream.getvalue()


def _header(table: Table, with_baseline: bool) -> list[str]:
    figures = [column.key + suffix for column in table.layout.columns for suffix in ("", *_suffixes(column, with_baseline))]
    origins = [f"{one.key}_{part}" for one in table.layout.benchmarks for part in ("items", "deviations", "seeds", "result")]
    last = ("pretraining_seed", "evaluation_seed", "backbone_sha256", "source", "note")
    return ["row", *table.layout.descriptors, *figures, *origins, *last]


def _suffixes(column: Column, with_baseline: bool) -> tuple[str, ...]:
    intervals = ("_low", "_high") if column.benchmark in BY_DATASET else ()
    deltas = ("_delta", "_delta_low", "_delta_high") if with_baseline else ()
    return ("_status", "_spread", *intervals, *deltas)


def _cells(table: Table, row: Row, marks: dict[str, Mark], with_baseline: bool) -> list[str]:
    figures: list[str] = []
    for column in table.layout.columns:
        values = _figure(row, column, marks.get(column.key, Mark()))
        figures += [values.get(suffix, "") for suffix in ("", *_suffixes(column, with_baseline))]
    origins = [text for benchmark in table.layout.benchmarks for text in _origin(row, benchmark)]
    digests = {one.result.backbone.sha256 for cell in row.cells.values() for one in cell.measurements}
    digest = digests.pop() if len(digests) == 1 else ""
    seeds = [str(seed) for seed in row.seed_of] if row.seed_of else ["", ""]
    return [row.kind, *row.descriptors.values(), *figures, *origins, *seeds, digest, row.source, row.note]


def _figure(row: Row, column: Column, mark: Mark) -> dict[str, str]:
    """The texts of one figure by the suffix of their column."""
    cell = row.cells.get(column.key)
    if cell is None:
        return {}
    values = {"": cell.text, "_status": cell.status}
    if cell.spread is not None:
        values["_spread"] = repr(cell.spread)
    if cell.interval_95 is not None:
        values |= {"_low": repr(cell.interval_95[0]), "_high": repr(cell.interval_95[1])}
    if mark.delta is not None:
        values["_delta"] = repr(mark.delta)
    if mark.interval is not None:
        values |= {"_delta_low": repr(mark.interval.low), "_delta_high": repr(mark.interval.high)}
    return values


def _origin(row: Row, benchmark: Benchmark) -> tuple[str, str, str, str]:
    """Items, deviations, number of seeds and result paths."""
    measurements: dict[str, Measurement] = {}
    for cell in row.cells.values():
        if cell.column.benchmark == benchmark:
            measurements |= {one.path: one for one in cell.measurements}
    if not measurements:
        return "", "", "", ""
    first = next(iter(measurements.values())).result
    deviations = deviations_of(first, benchmark.key)
    return (
        str(first.datasets["test"].num_items),
        json.dumps(deviations, sort_keys=True) if deviations else "",
        str(len(measurements)),
        "; ".join(measurements),
    )
