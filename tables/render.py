"""The tables as CSV files, the results as lines of JSON, and all tables on one Markdown page; `docs/tables.md` explains the columns.

On the Markdown page, a value that is not a benchmark number stands in brackets and italics, and the last column says why.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from common.files import FORMULA_STARTS
from eval.result import json_values
from eval.tasks import BENCHMARKS
from tables.collect import Evaluated, slots_of
from tables.comparability import deviations_of
from tables.compare import FEWEST_ITEMS, RESAMPLES
from tables.rows import BENCHMARK_NUMBERS, Cell, Row, Table, in_words, printed, signed, standing, standing_word

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")
_NO_VALUE = "n/a"
NOT_RUN = "–"
IN_FULL_ONLY = ("epochs", "knn_features", "linear_features")  # the papers' tables have no such columns

_LEGEND = f"""\
| cell | means |
| --- | --- |
| 62.7 | published, as printed in the source |
| 62.7 in a `measured` row | measured here on the whole benchmark by the published protocol |
| *[62.7]* | measured here, **not a benchmark number**; the standing says why: sample data, a part (subset) of the benchmark, \
or another (deviating) protocol |
| **62.7**, <u>62.7</u> | best and second of the benchmark numbers in the column; others never compete |
| 62.7‡ | a benchmark number that does not compete; below the table stands why |
| 62.7 ± 0.3 (n=3) | mean and standard deviation over so many seeds |
| 62.7 <sub>61.9–63.5</sub> | with its 95 % interval over resampled test images |
| 62.7 (+2.0), (+2.0\\*) | difference from the baseline, where both are comparable; with a star, significant at 5 %: by a paired \
sign-flip test over the images or sequences of both, for mIoU, mAcc and AP by a paired bootstrap ({RESAMPLES} draws) |
| n/a | measured here, but the task gave no value |
| – | not measured, or not stated |

A difference without a star is not significant, or cannot be tested: published figures carry no single items, nor do results from
before these were recorded; fewer than {FEWEST_ITEMS} items show nothing."""


def render_csv(table: Table) -> str:
    """The table for people: as the paper prints it, with what the values of each row are worth and how many seeds they have."""
    descriptors = [name for name in table.layout.descriptors if name not in IN_FULL_ONLY]
    records = [
        {
            **row.descriptors,
            **{key: rounded(cell) for key, cell in row.cells.items()},
            "standing": in_words(row.cells.values(), standing_word),
            "seeds": in_words(row.cells.values(), lambda cell: str(len(cell.measurements))) if row.evaluated else "",
        }
        for row in table.rows
    ]
    return csv_file([*descriptors, *(column.key for column in table.layout.columns), "standing", "seeds"], records)


def render_full_csv(table: Table, with_baseline: bool = False) -> str:
    """Everything about a table, in full precision, with the rows of single seeds; with a baseline, also the differences."""
    values = []
    for column in table.layout.columns:
        suffixes = ["", "_status", "_spread"]
        suffixes += ["_low", "_high"] if BENCHMARKS[column.benchmark].any_dataset else []
        suffixes += ["_delta", "_delta_low", "_delta_high"] if with_baseline else []
        values += [f"{column.key}{suffix}" for suffix in suffixes]
    parts = ("items", "deviations", "seeds", "result")
    places = dict.fromkeys(column.place for column in table.layout.columns if column.metric)
    origins = [f"{place}_{part}" for place in places for part in parts]
    about = ["pretraining_seed", "evaluation_seed", "backbone_sha256", "source", "note"]
    records = [_csv_record(one) for row in table.rows for one in (row, *row.seeds)]
    return csv_file(["row", *table.layout.descriptors, *values, *origins, *about], records)


def csv_file(header: Sequence[str], records: Sequence[Mapping[str, str]]) -> str:
    """The whole file, with Unix line ends; what a record lacks is empty, and what the header lacks is left out."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, header, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: csv_text(text) for name, text in record.items()})
    return stream.getvalue()


def render_json_lines(evaluated: Sequence[Evaluated]) -> str:
    """Each result on a line: what its file holds but for the single items, its path, its architecture in words, and its standing."""
    lines = []
    for row in evaluated:
        for measurement in row.measurements:
            content = json_values(measurement.result)
            del content["breakdown"]
            worth = {slot.benchmark: standing(measurement.result, slot.benchmark) for slot in slots_of(measurement.result)}
            own = {"path": measurement.path, "architecture": row.architecture, "standing": worth}
            lines.append(json.dumps({**own, **content}, allow_nan=False, default=str))
    return "".join(f"{line}\n" for line in lines)


def csv_text(text: str) -> str:
    """A cell that no spreadsheet computes: text that begins like a formula, and is no number, gets an apostrophe before it."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) and not _NUMBER.fullmatch(shown) else shown


def _csv_record(row: Row) -> dict[str, str]:
    """Name of a column -> text; columns without a text are left out."""
    record = {"row": row.kind, **row.descriptors, "source": row.source, "note": row.note}
    for key, cell in row.cells.items():
        low, high = cell.interval_95 or (None, None)
        delta_low, delta_high = cell.delta_interval or (None, None)
        numbers = {"spread": cell.spread, "low": low, "high": high}
        numbers |= {"delta": cell.delta, "delta_low": delta_low, "delta_high": delta_high}
        record |= {key: cell.text, f"{key}_status": cell.status}
        record |= {f"{key}_{name}": repr(number) for name, number in numbers.items() if number is not None}
    for cell in row.cells.values():
        if cell.measurements:
            place, first = cell.column.place, cell.measurements[0].result
            deviations = deviations_of(first, cell.column.benchmark)
            record[f"{place}_items"] = str(first.datasets["test"].num_items)
            record[f"{place}_deviations"] = json.dumps(deviations, sort_keys=True) if deviations else ""
            paths = [measurement.path for measurement in cell.measurements]
            record |= {f"{place}_seeds": str(len(paths)), f"{place}_result": "; ".join(paths)}
    digests = {found.result.backbone.sha256 for cell in row.cells.values() for found in cell.measurements}
    record["backbone_sha256"] = digests.pop() if len(digests) == 1 else ""
    if row.seed_of is not None:
        record |= {"pretraining_seed": str(row.seed_of[0]), "evaluation_seed": str(row.seed_of[1])}
    return record


def render_markdown(tables: Sequence[Table], baseline: str | None = None) -> str:
    """The page; it leaves out tables without rows."""
    parts = [
        "# Results",
        "Figures are in percent, to one decimal, unless a table says otherwise. The files NAME_full.csv beside this page hold all "
        "digits, the file behind each figure, its test data and its deviations from the published protocol.",
        _LEGEND,
    ]
    for table in tables:
        if table.rows:
            parts += [f"## {table.layout.title}", table.layout.caption, _grid(table), *_footer(table, baseline)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _grid(table: Table) -> str:
    descriptors, columns = table.layout.descriptors, table.layout.columns
    headings = [*(name.replace("_", " ") for name in descriptors), *(column.heading for column in columns), "standing"]
    lines = []
    for row in table.rows:
        cells = []
        for name, text in row.descriptors.items():
            is_run_name = name == "method" and row.evaluated
            cells.append((code(text) if is_run_name else plain_cell(text)) or NOT_RUN)
        values = [_markdown_value(row.cells.get(column.key)) for column in columns]
        lines.append([*cells, *values, in_words(row.cells.values(), standing_word)])
    sides = [*["left"] * len(descriptors), *["right"] * len(columns), "left"]
    return tabulate(lines, headings, tablefmt="pipe", colalign=sides, disable_numparse=True)


def _markdown_value(cell: Cell | None) -> str:
    if cell is None:
        return NOT_RUN
    fence = {"best": ("**", "**"), "second": ("<u>", "</u>"), None: ("", "")}[cell.rank]
    if cell.status not in BENCHMARK_NUMBERS:
        fence = ("*[", "]*")
    text = f"{fence[0]}{with_spread(cell)}{fence[1]}" + ("‡" if cell.incomparable else "")
    if cell.interval_95 is not None:
        text += f" <sub>{'–'.join(printed(end, cell.column) for end in cell.interval_95)}</sub>"
    if cell.delta is not None:
        star = "\\*" if cell.star else ""
        text += f" ({signed(cell.delta, cell.column)}{star})"
    return text


def with_spread(cell: Cell) -> str:
    """A value as pages print it, with its spread over several seeds and their number."""
    text = rounded(cell)
    return text if cell.spread is None else f"{text} ± {printed(cell.spread, cell.column)} (n={len(cell.measurements)})"


def rounded(cell: Cell) -> str:
    """A value as pages print it; published values keep their digits."""
    if cell.value is None:
        return _NO_VALUE
    return printed(cell.value, cell.column) if cell.measurements else cell.text


def _footer(table: Table, baseline: str | None) -> list[str]:
    """Sources of the published rows, remarks on them, the baseline, and why some values do not compete."""
    published = [row for row in table.rows if row.evaluated is None]
    remarks: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row.note:
            name = row.descriptors["method"]
            remarks.setdefault(row.note, {})[name if row.evaluated is None else code(name)] = None
    lines = [f"Published rows: {plain_cell(source)}." for source in dict.fromkeys(row.source for row in published)]
    lines += [f"{', '.join(methods)} – {plain_cell(text)}." for text, methods in remarks.items()]
    if baseline is not None and any(row.baseline for row in table.rows):
        lines.append(f"Differences are from {code(baseline)}, to rows of the same backbone.")
    excluded = [
        f"‡ {code(row.descriptors['method'])} does not compete: {plain_cell(row.cells[column.key].incomparable)}."
        for column in table.layout.columns
        for row in table.rows
        if column.key in row.cells and row.cells[column.key].incomparable
    ]
    lines += dict.fromkeys(excluded)
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def plain(text: str) -> str:
    """Text on one line, without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def plain_cell(text: str) -> str:
    """Text that breaks no cell of a Markdown table, and is neither HTML, a link, a picture nor code."""
    return re.sub(r"[\\|<\[`]", r"\\\g<0>", plain(text))


def code(text: str) -> str:
    """A code span that does not break a cell, whatever characters it holds."""
    inline = plain(text).replace("|", "\\|")
    if not inline:
        return ""
    longest = max(map(len, re.findall("`+", inline)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if inline.startswith("`") or inline.endswith("`") else ""
    return f"{fence}{padding}{inline}{padding}{fence}"
