"""The tables as CSV files and as one Markdown page.

CSV: full precision, and beside every value its standing. Columns: `row`, the kind of the row
(`tables.rows.Row.kind`: a row of means is followed by one for each of its seeds); the descriptors; for each
metric `KEY`, `KEY_status`, `KEY_spread` (standard deviation over the seeds), in tables with rows per data set
`KEY_low` and `KEY_high` (95 % interval over resampled items), and with a baseline `KEY_delta`,
`KEY_delta_low` and `KEY_delta_high` (minus the baseline's value, and the 95 % interval of that); for each
benchmark `NAME_items` (images or sequences of the test split), `NAME_deviations` from the published protocol
(JSON, setting -> [published, used]), `NAME_seeds` (how many results) and `NAME_result` (paths below the
folder of runs, separated by `; `), all empty in published rows; `pretraining_seed` (-1: not recorded) and
`evaluation_seed` of a row of one seed; `backbone_sha256`, empty where several seeds have several; `source`;
`note`.

Markdown: a value that is no benchmark number never stands bare. It is in brackets and italics, with a number
that leads to a note saying why.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from eval.result import Dataset, Result
from eval.tasks import BENCHMARKS, Benchmark
from tables.collect import Evaluated, Measurement, slots_of
from tables.comparability import deviations_of
from tables.compare import FEWEST_ITEMS, RESAMPLES, Comparison, Mark, marked
from tables.rows import BENCHMARK_NUMBERS, VERDICTS, Cell, Row, Status, Table, printed, signed, standing

_NO_VALUE = "n/a"
_NOT_RUN = "–"

_LEGEND = f"""\
| cell | means |
| --- | --- |
| 62.7 | published, as printed in the source |
| 62.7<sup>1</sup> | measured here on the whole benchmark by the published protocol; the note says from which file |
| *[62.7]*<sup>1</sup> | measured here, **not a benchmark number**: on sample data, a part of the benchmark or by another \
protocol; the note says which |
| **62.7**, <u>62.7</u> | best and second of the benchmark numbers in the column; others never compete |
| 62.7<sup>1</sup>‡ | a benchmark number that does not compete; below the table stands why |
| 62.7 ± 0.3 (n=3) | mean and standard deviation over so many seeds |
| 62.7 <sub>61.9–63.5</sub> | with its 95 % interval over resampled test images |
| 62.7 (+2.0), (+2.0\\*) | difference from the baseline, where both are comparable; with a star, significant: a paired bootstrap \
over the images or sequences of both ({RESAMPLES} resampled sets, two-sided 95 %) excludes zero |
| n/a | measured here, but the task gave no value |
| – | not measured, or not stated |

A difference without a star is not significant, or cannot be tested: published figures carry no single items, nor do results from
before these were recorded; fewer than {FEWEST_ITEMS} items show nothing."""


def render_csv(table: Table, comparison: Comparison, with_baseline: bool = False) -> str:
    """The whole file, with Unix line ends; with a baseline, it has columns for the differences."""
    deltas = ("_delta", "_delta_low", "_delta_high") if with_baseline else ()
    suffixes = {
        column.key: (
            "",
            "_status",
            "_spread",
            *(("_low", "_high") if BENCHMARKS[column.benchmark].any_dataset else ()),
            *deltas,
        )
        for column in table.layout.columns
    }
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [key + suffix for key, of_column in suffixes.items() for suffix in of_column]
    origins = [f"{one.key}_{part}" for one in table.layout.benchmarks for part in ("items", "deviations", "seeds", "result")]
    about = ["pretraining_seed", "evaluation_seed", "backbone_sha256", "source", "note"]
    writer.writerow(["row", *table.layout.descriptors, *names, *origins, *about])
    for row, entries in marked(table, comparison):
        writer.writerow(_csv_cells(table, row, {column.key: mark for column, _, mark in entries}, suffixes))
        for seed in row.seeds:
            writer.writerow(_csv_cells(table, seed, {}, suffixes))
    return stream.getvalue()


def _csv_cells(table: Table, row: Row, marks: Mapping[str, Mark], suffixes: Mapping[str, tuple[str, ...]]) -> list[str]:
    values: list[str] = []
    for key, of_column in suffixes.items():
        texts = _csv_values(row.cells[key], marks.get(key, Mark())) if key in row.cells else {}
        values += [texts.get(suffix, "") for suffix in of_column]
    origins = [text for benchmark in table.layout.benchmarks for text in _origin(row, benchmark)]
    digests = {one.result.backbone.sha256 for cell in row.cells.values() for one in cell.measurements}
    digest = digests.pop() if len(digests) == 1 else ""
    seeds = [str(seed) for seed in row.seed_of] if row.seed_of else ["", ""]
    return [row.kind, *row.descriptors.values(), *values, *origins, *seeds, digest, row.source, row.note]


def _csv_values(cell: Cell, mark: Mark) -> dict[str, str]:
    """The texts of one value by the suffix of their column."""
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
    cells = (cell for cell in row.cells.values() if cell.column.benchmark == benchmark.key)
    measurements = {one.path: one for cell in cells for one in cell.measurements}
    if not measurements:
        return "", "", "", ""
    first = next(iter(measurements.values())).result
    deviations = deviations_of(first, benchmark.key)
    texts = json.dumps(deviations, sort_keys=True) if deviations else ""
    return str(first.datasets["test"].num_items), texts, str(len(measurements)), "; ".join(measurements)


def render_markdown(
    tables: Sequence[Table], comparisons: Sequence[Comparison], evaluated: Sequence[Evaluated], baseline: str | None = None
) -> str:
    """The page; tables without rows are left out, and each result gets a note, numbered through the page."""
    parts = [
        "# Results",
        "Figures are in percent and rounded to one decimal here; the CSV files beside this page hold all digits.",
        _LEGEND,
    ]
    for table, comparison in zip(tables, comparisons, strict=True):
        if table.rows:
            grid = _grid(table, comparison)
            parts += [f"## {table.layout.title}", table.layout.caption, grid, *_footer(table, comparison, baseline)]
    notes = [f"{one.number}. {_note(one)}" for row in evaluated for one in row.measurements]
    parts += ["## Notes on what was measured here", "\n".join(notes) or "There are no results yet."]
    if evaluated:
        parts += ["## Backbones measured here", _backbones(evaluated)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _grid(table: Table, comparison: Comparison) -> str:
    descriptors, columns = table.layout.descriptors, table.layout.columns
    headings = [*(name.replace("_", " ") for name in descriptors), *(column.heading for column in columns)]
    # Values are aligned to the right.
    lines = [_line(["figures", *headings]), _line(["---", *["---"] * len(descriptors), *["--:"] * len(columns)])]
    for row, entries in marked(table, comparison):
        origin = "measured" if row.evaluated else "published"
        values = [_markdown_value(cell, mark) for _, cell, mark in entries]
        lines.append(_line([origin, *_descriptors(row), *values]))
    return "\n".join(lines)


def _descriptors(row: Row) -> list[str]:
    texts = []
    for name, text in row.descriptors.items():
        is_run_name = name == "method" and row.evaluated is not None
        texts.append((_code(text) if is_run_name else _plain(text)) or _NOT_RUN)
    return texts


def _markdown_value(cell: Cell | None, mark: Mark) -> str:
    if cell is None:
        return _NOT_RUN
    value = rounded(cell)
    if cell.spread is not None:
        value = f"{value} ± {printed(cell.spread)} (n={len(cell.measurements)})"
    fence = {"best": ("**", "**"), "second": ("<u>", "</u>"), None: ("", "")}[mark.rank]
    if cell.status not in BENCHMARK_NUMBERS:
        fence = ("*[", "]*")
    notes = ",".join(str(one.number) for one in cell.measurements)
    text = f"{fence[0]}{value}{fence[1]}" + (f"<sup>{notes}</sup>" if notes else "") + ("‡" if mark.incomparable else "")
    if cell.interval_95 is not None:
        text += f" <sub>{'–'.join(map(printed, cell.interval_95))}</sub>"
    if mark.delta is not None:
        star = "\\*" if mark.significant else ""
        text += f" ({signed(mark.delta)}{star})"
    return text


def rounded(cell: Cell) -> str:
    """A value as pages print it: a published one with its own digits."""
    if cell.value is None:
        return _NO_VALUE
    return printed(cell.value) if cell.measurements else cell.text


def _footer(table: Table, comparison: Comparison, baseline: str | None) -> list[str]:
    """Sources of the published rows, remarks on them, the baseline, and what does not compete."""
    published = [row for row in table.rows if row.evaluated is None]
    remarks: dict[str, dict[str, None]] = {}
    for row in published:
        if row.note:
            remarks.setdefault(row.note, {})[row.descriptors["method"]] = None
    lines = [f"Published rows: {_plain(source)}." for source in dict.fromkeys(row.source for row in published)]
    lines += [f"{', '.join(methods)} – {_plain(text)}." for text, methods in remarks.items()]
    if comparison.baselines and baseline is not None:
        lines.append(f"Differences are from {_code(baseline)}, to rows of the same backbone.")
    names = {number: _code(row.descriptors["method"]) for number, row in enumerate(table.rows)}
    lines += dict.fromkeys(
        f"‡ {names[number]} does not compete: {_plain(mark.incomparable)}."
        for (number, _), mark in comparison.marks.items()
        if mark.incomparable
    )
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _note(measurement: Measurement) -> str:
    """One result's note, on one line: its path, what it is worth, its data, protocol and seeds."""
    result = measurement.result
    standings = {standing(result, slot.benchmark): slot.benchmark for slot in slots_of(result)}
    verdicts = [_verdict(status) + (f" ({benchmark})" if len(standings) > 1 else "") for status, benchmark in standings.items()]
    data = "; ".join(_data(role, dataset) for role, dataset in sorted(result.datasets.items()))
    pretraining = result.backbone.source.get("seed", -1)
    seeds = f"Seed {result.seed}" + (f", of the pretraining {pretraining}" if pretraining >= 0 else "")
    return f"{_code(measurement.path)}: {', '.join(verdicts)}. {data}. {_protocol(result)}. {seeds}."


def _verdict(status: Status) -> str:
    return VERDICTS[status] if status in BENCHMARK_NUMBERS else f"**{VERDICTS[status]}**"


def _data(role: str, dataset: Dataset) -> str:
    verb = {"test": "Tested", "train": "trained"}.get(role, role)
    name = f"{_plain(dataset.name)} {_plain(dataset.split)}"
    on = {"full": f"{name}, whole", "subset": f"a part of {name}", "sample": f"sample data in the format of {name}"}
    return f"{verb} on {on[dataset.coverage]}: {dataset.num_items} items"


def _protocol(result: Result) -> str:
    protocol = f"Protocol {_code(result.protocol.name)} version {result.protocol.version}"
    changes = [
        f"{_code(name)} {_code(json.dumps(used))} instead of {_code(json.dumps(published))}"
        for name, (published, used) in sorted(result.protocol.deviations.items())
    ]
    return f"{protocol} with {', '.join(changes)}" if changes else f"{protocol} as published"


def _backbones(evaluated: Sequence[Evaluated]) -> str:
    lines = [_line(["name", "architecture", "checkpoint", "format", "branch", "epoch", "seed", "backbone file sha256"])]
    lines.append(_line(["---"] * 8))
    records = {
        (one.result.backbone.name, one.result.backbone.sha256): (row, one.result.backbone)
        for row in evaluated
        for one in row.measurements
    }
    for row, record in records.values():
        source = record.source
        epoch, seed = (str(value) if value >= 0 else _NOT_RUN for value in (source["epoch"], source.get("seed", -1)))
        names = [_code(str(source[key])) for key in ("file_name", "format", "branch")]
        lines.append(_line([_code(record.name), row.architecture, *names, epoch, seed, _code(record.sha256[:16])]))
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    """A code span that stays in its cell, whatever the user called things."""
    inline = _plain(text)
    if not inline:
        return ""
    fence = "``" if "`" in inline else "`"
    padding = " " if inline.startswith("`") or inline.endswith("`") else ""
    return f"{fence}{padding}{inline}{padding}{fence}"
