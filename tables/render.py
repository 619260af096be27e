"""The tables as CSV files and as one Markdown page.

The CSV files have full precision, and the standing of every value. Their columns are

- `row`, the kind of the row (`tables.rows.Row.kind`; the rows of its seeds follow a row of means), and the descriptors;
- for each metric `KEY`, `KEY_status`, `KEY_spread` (standard deviation over the seeds); in tables with rows per data set also
  `KEY_low` and `KEY_high` (95 % interval over resampled items); with a baseline also `KEY_delta`, `KEY_delta_low` and
  `KEY_delta_high` (difference from the baseline, and its 95 % interval);
- for each benchmark `NAME_items` (images or sequences of the test split), `NAME_deviations` from the published protocol (JSON,
  setting -> [published, used]), `NAME_seeds` (number of results), `NAME_result` (paths below the folder of runs, separated by
  `; `); all are empty in published rows;
- `pretraining_seed` (-1: not recorded) and `evaluation_seed` of a row of one seed; `backbone_sha256`, empty if the seeds have several
  backbones; `source`; `note`.

On the Markdown page, a value that is not a benchmark number stands in brackets and italics, with a number that leads to a note saying
why.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence

from common.files import FORMULA_STARTS
from eval.result import Dataset, Result
from eval.tasks import BENCHMARKS
from tables.collect import Evaluated, Measurement, slots_of
from tables.comparability import deviations_of
from tables.compare import FEWEST_ITEMS, RESAMPLES, Comparison, Mark, marked
from tables.rows import BENCHMARK_NUMBERS, VERDICTS, Cell, Row, Table, printed, signed, standing

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")
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
| 62.7 (+2.0), (+2.0\\*) | difference from the baseline, where both are comparable; with a star, significant at 5 %: by a paired \
sign-flip test over the images or sequences of both, for mIoU, mAcc and AP by a paired bootstrap ({RESAMPLES} draws) |
| n/a | measured here, but the task gave no value |
| – | not measured, or not stated |

A difference without a star is not significant, or cannot be tested: published figures carry no single items, nor do results from
before these were recorded; fewer than {FEWEST_ITEMS} items show nothing."""


def render_csv(table: Table, comparison: Comparison, with_baseline: bool = False) -> str:
    """The whole file, with Unix line ends; with a baseline, it has columns for the differences."""
    values = []
    for column in table.layout.columns:
        suffixes = ["", "_status", "_spread"]
        suffixes += ["_low", "_high"] if BENCHMARKS[column.benchmark].any_dataset else []
        suffixes += ["_delta", "_delta_low", "_delta_high"] if with_baseline else []
        values += [f"{column.key}{suffix}" for suffix in suffixes]
    origins = [
        f"{benchmark.key}_{part}"
        for benchmark in table.layout.benchmarks
        for part in ("items", "deviations", "seeds", "result")
    ]
    about = ["pretraining_seed", "evaluation_seed", "backbone_sha256", "source", "note"]
    header = ["row", *table.layout.descriptors, *values, *origins, *about]
    stream = io.StringIO()
    # A table without rows per data set has no columns for the interval of a single result.
    writer = csv.DictWriter(stream, header, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row, entries in marked(table, comparison):
        records = [_csv_record(table, row, {column.key: mark for column, _, mark in entries})]
        for record in (*records, *(_csv_record(table, seed, {}) for seed in row.seeds)):
            writer.writerow({name: csv_text(text) for name, text in record.items()})
    return stream.getvalue()


def csv_text(text: str) -> str:
    """A cell that no spreadsheet computes: text that begins like a formula, and is no number, gets an apostrophe before it."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) and not _NUMBER.fullmatch(shown) else shown


def _csv_record(table: Table, row: Row, marks: Mapping[str, Mark]) -> dict[str, str]:
    """Name of a column -> text; columns without a text are left out."""
    record = {"row": row.kind, **row.descriptors, "source": row.source, "note": row.note}
    for key, cell in row.cells.items():
        mark = marks.get(key, Mark())
        low, high = cell.interval_95 or (None, None)
        delta_low, delta_high = mark.interval or (None, None)
        numbers = {"spread": cell.spread, "low": low, "high": high}
        numbers |= {"delta": mark.delta, "delta_low": delta_low, "delta_high": delta_high}
        record |= {key: cell.text, f"{key}_status": cell.status}
        record |= {f"{key}_{name}": repr(number) for name, number in numbers.items() if number is not None}
    for benchmark in table.layout.benchmarks:
        cells = (cell for cell in row.cells.values() if cell.column.benchmark == benchmark.key)
        results = {measurement.path: measurement.result for cell in cells for measurement in cell.measurements}
        if results:
            first = next(iter(results.values()))
            deviations = deviations_of(first, benchmark.key)
            record[f"{benchmark.key}_items"] = str(first.datasets["test"].num_items)
            record[f"{benchmark.key}_deviations"] = json.dumps(deviations, sort_keys=True) if deviations else ""
            record |= {f"{benchmark.key}_seeds": str(len(results)), f"{benchmark.key}_result": "; ".join(results)}
    digests = {found.result.backbone.sha256 for cell in row.cells.values() for found in cell.measurements}
    record["backbone_sha256"] = digests.pop() if len(digests) == 1 else ""
    if row.seed_of is not None:
        record |= {"pretraining_seed": str(row.seed_of[0]), "evaluation_seed": str(row.seed_of[1])}
    return record


def render_markdown(
    tables: Sequence[Table], comparisons: Sequence[Comparison], evaluated: Sequence[Evaluated], baseline: str | None = None
) -> str:
    """The page; it leaves out tables without rows, and has a numbered note for each result."""
    parts = [
        "# Results",
        "Figures are in percent and rounded to one decimal here, unless a table says otherwise; the CSV files beside this page hold "
        "all digits.",
        _LEGEND,
    ]
    for table, comparison in zip(tables, comparisons, strict=True):
        if table.rows:
            grid = _grid(table, comparison)
            parts += [f"## {table.layout.title}", table.layout.caption, grid, *_footer(table, comparison, baseline)]
    notes = [f"{measurement.number}. {_note(measurement)}" for row in evaluated for measurement in row.measurements]
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
        cells = ["measured" if row.evaluated else "published"]
        for name, text in row.descriptors.items():
            is_run_name = name == "method" and row.evaluated
            cells.append((_code(text) if is_run_name else _plain(text)) or _NOT_RUN)
        lines.append(_line([*cells, *(_markdown_value(cell, mark) for _, cell, mark in entries)]))
    return "\n".join(lines)


def _markdown_value(cell: Cell | None, mark: Mark) -> str:
    if cell is None:
        return _NOT_RUN
    value = rounded(cell)
    if cell.spread is not None:
        value = f"{value} ± {printed(cell.spread, cell.column)} (n={len(cell.measurements)})"
    fence = {"best": ("**", "**"), "second": ("<u>", "</u>"), None: ("", "")}[mark.rank]
    if cell.status not in BENCHMARK_NUMBERS:
        fence = ("*[", "]*")
    notes = ",".join(str(measurement.number) for measurement in cell.measurements)
    text = f"{fence[0]}{value}{fence[1]}" + (f"<sup>{notes}</sup>" if notes else "") + ("‡" if mark.incomparable else "")
    if cell.interval_95 is not None:
        text += f" <sub>{'–'.join(printed(end, cell.column) for end in cell.interval_95)}</sub>"
    if mark.delta is not None:
        star = "\\*" if mark.significant else ""
        text += f" ({signed(mark.delta, cell.column)}{star})"
    return text


def rounded(cell: Cell) -> str:
    """A value as pages print it; published values keep their digits."""
    if cell.value is None:
        return _NO_VALUE
    return printed(cell.value, cell.column) if cell.measurements else cell.text


def _footer(table: Table, comparison: Comparison, baseline: str | None) -> list[str]:
    """Sources of the published rows, remarks on them, the baseline, and why some values do not compete."""
    published = [row for row in table.rows if row.evaluated is None]
    remarks: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row.note:
            name = row.descriptors["method"]
            remarks.setdefault(row.note, {})[name if row.evaluated is None else _code(name)] = None
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
    """The note on a result, on one line: its path, what it is worth, its data, protocol and seeds."""
    result = measurement.result
    standings = {standing(result, slot.benchmark): slot.benchmark for slot in slots_of(result)}
    verdicts = []
    for status, benchmark in standings.items():
        verdict = VERDICTS[status] if status in BENCHMARK_NUMBERS else f"**{VERDICTS[status]}**"
        verdicts.append(f"{verdict} ({benchmark})" if len(standings) > 1 else verdict)
    data = "; ".join(_data(role, dataset) for role, dataset in sorted(result.datasets.items()))
    pretraining = result.backbone.source.get("seed", -1)
    seeds = f"Seed {result.seed}" + (f", of the pretraining {pretraining}" if pretraining >= 0 else "")
    return f"{_code(measurement.path)}: {', '.join(verdicts)}. {data}. {_protocol(result)}. {seeds}."


def _data(role: str, dataset: Dataset) -> str:
    verb = {"test": "Tested", "train": "trained"}.get(role) or _plain(role)
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
    backbones = [(row, measurement.result.backbone) for row in evaluated for measurement in row.measurements]
    for row, record in {(record.name, record.sha256): (row, record) for row, record in backbones}.values():
        source = record.source
        epoch, seed = (str(value) if value >= 0 else _NOT_RUN for value in (source["epoch"], source.get("seed", -1)))
        names = [_code(str(source[key])) for key in ("file_name", "format", "branch")]
        lines.append(_line([_code(record.name), row.architecture, *names, epoch, seed, _code(record.sha256[:16])]))
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text on one line, without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _plain(text: str) -> str:
    """Text that breaks no cell of a Markdown table, and is neither HTML, a link, a picture nor code."""
    return re.sub(r"[\\|<\[`]", r"\\\g<0>", plain(text))


def _code(text: str) -> str:
    """A code span that does not break a cell, whatever characters it holds."""
    inline = plain(text).replace("|", "\\|")
    if not inline:
        return ""
    longest = max(map(len, re.findall("`+", inline)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if inline.startswith("`") or inline.endswith("`") else ""
    return f"{fence}{padding}{inline}{padding}{fence}"
