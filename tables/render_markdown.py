"""All tables as one Markdown page.

A figure that is no benchmark number never stands bare: it is in brackets and italics, with a number that leads to a note saying why.
"""

from collections.abc import Sequence

from tables.bootstrap import FEWEST_ITEMS, RESAMPLES
from tables.collect import Evaluated
from tables.comparison import Comparison, Mark, printed
from tables.notes import code, note, numbered, plain
from tables.rows import BENCHMARK_NUMBERS, Cell, Row, Table

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


def render_markdown(
    tables: Sequence[Table], comparisons: Sequence[Comparison], evaluated: Sequence[Evaluated], baseline: str | None = None
) -> str:
    """The page.

    Args:
        tables: In the order of the page; those without rows are left out.
        comparisons: Their marks.
        evaluated: Everything that was measured; each result gets a note, numbered through the page.
        baseline: From whose row differences are given.
    """
    numbers = numbered(evaluated)
    parts = [
        "# Results",
        "Figures are in percent and rounded to one decimal here; the CSV files beside this page hold all digits.",
        _LEGEND,
    ]
    for table, comparison in zip(tables, comparisons, strict=True):
        if table.rows:
            grid = _grid(table, comparison, numbers)
            parts += [f"## {table.layout.title}", table.layout.caption, grid, *_footer(table, comparison, baseline)]
    parts += ["## Notes on what was measured here", _notes(evaluated, numbers)]
    if evaluated:
        parts += ["## Backbones measured here", _backbones(evaluated)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _grid(table: Table, comparison: Comparison, numbers: dict[str, int]) -> str:
    headings = [
        *(name.replace("_", " ") for name in table.layout.descriptors),
        *(column.heading for column in table.layout.columns),
    ]
    # Figures are aligned to the right.
    rules = ["---"] * len(table.layout.descriptors) + ["--:"] * len(table.layout.columns)
    lines = [_line(["figures", *headings]), _line(["---", *rules])]
    for number, row in enumerate(table.rows):
        origin = "measured" if row.evaluated else "published"
        figures = [
            _figure(row.cells.get(column.key), comparison.mark(number, column.key), numbers) for column in table.layout.columns
        ]
        lines.append(_line([origin, *_descriptors(row), *figures]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _descriptors(row: Row) -> list[str]:
    texts = []
    for name, text in row.descriptors.items():
        is_run_name = name == "method" and row.evaluated is not None
        texts.append((code(text) if is_run_name else plain(text)) or _NOT_RUN)
    return texts


def _figure(cell: Cell | None, mark: Mark, numbers: dict[str, int]) -> str:
    if cell is None:
        return _NOT_RUN
    value = _NO_VALUE
    if cell.value is not None:
        value = printed(cell.value) if cell.measurements else cell.text
    if cell.spread is not None:
        value = f"{value} ± {printed(cell.spread)} (n={len(cell.measurements)})"
    fence = {"best": ("**", "**"), "second": ("<u>", "</u>"), None: ("", "")}[mark.rank]
    if cell.status not in BENCHMARK_NUMBERS:
        fence = ("*[", "]*")
    notes = ",".join(str(numbers[one.path]) for one in cell.measurements)
    text = f"{fence[0]}{value}{fence[1]}" + (f"<sup>{notes}</sup>" if notes else "") + ("‡" if mark.incomparable else "")
    if cell.interval_95 is not None:
        text += f" <sub>{printed(cell.interval_95[0])}–{printed(cell.interval_95[1])}</sub>"
    if mark.delta is not None:
        text += f" ({signed(mark.delta)}{_star(mark)})"
    return text


def signed(delta: float) -> str:
    """A difference as tables print it: `+2.0`, `-0.3`, `0.0` for what rounds to it."""
    text = f"{delta:+.1f}"
    return text[1:] if float(text) == 0 else text


def _star(mark: Mark) -> str:
    return "\\*" if mark.interval is not None and mark.interval.significant else ""


def _footer(table: Table, comparison: Comparison, baseline: str | None) -> list[str]:
    """Sources of the published rows, remarks on them, the baseline, and what does not compete."""
    published = [row for row in table.rows if row.evaluated is None]
    sources = dict.fromkeys(row.source for row in published)
    remarks: dict[str, list[str]] = {}
    for row in published:
        if row.note:
            remarks.setdefault(row.note, []).append(row.descriptors["method"])
    lines = [f"Published rows: {plain(source)}." for source in sources]
    lines += [f"{', '.join(dict.fromkeys(methods))} – {plain(text)}." for text, methods in remarks.items()]
    if comparison.baselines and baseline is not None:
        lines.append(f"Differences are from {code(baseline)}, to rows of the same backbone.")
    excluded: dict[str, None] = {}
    for (number, _), mark in comparison.marks.items():
        if mark.incomparable:
            name = code(table.rows[number].descriptors["method"])
            excluded[f"‡ {name} does not compete: {plain(mark.incomparable)}."] = None
    lines += excluded
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _notes(evaluated: Sequence[Evaluated], numbers: dict[str, int]) -> str:
    if not evaluated:
        return "There are no results yet."
    return "\n".join(f"{numbers[one.path]}. {note(one)}" for row in evaluated for one in row.measurements)


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
        names = [code(str(source[key])) for key in ("file_name", "format", "branch")]
        lines.append(_line([code(record.name), row.architecture, *names, epoch, seed, code(record.sha256[:16])]))
    return "\n".join(lines)
