"""All tables as one Markdown page.

A figure that is no benchmark number never stands bare: it is in brackets and italics, with a number that leads to a note saying why.
"""

import json
from collections.abc import Sequence

from eval.result import Dataset, Result
from tables.collect import Evaluated, Measurement
from tables.rows import Cell, Row, Status, Table, standing

_NO_VALUE = "n/a"
_NOT_RUN = "–"

_LEGEND = """\
| cell | means |
| --- | --- |
| 62.7 | published, as printed in the source |
| **62.7**<sup>1</sup> | measured here on the whole benchmark by the published protocol; the note says from which file |
| *[62.7]*<sup>1</sup> | measured here, **not a benchmark number**: on sample data, a part of the benchmark or by another \
protocol; the note says which |
| n/a | measured here, but the task gave no value |
| – | not measured, or not stated |
"""

_VERDICTS: dict[Status, str] = {
    "published": "published",
    "measured": "whole benchmark, published protocol",
    "measured-deviating": "**deviating protocol: not a benchmark number**",
    "measured-subset": "**part of the benchmark: not a benchmark number**",
    "measured-sample": "**sample data: not a benchmark number**",
}


def render_markdown(tables: Sequence[Table], evaluated: Sequence[Evaluated]) -> str:
    """The page.

    Args:
        tables: In the order of the page.
        evaluated: All evaluated backbones; their results get a note each, numbered through the page.
    """
    measurements = [measurement for one in evaluated for measurement in one.measurements.values()]
    numbers = {measurement.path: number for number, measurement in enumerate(measurements, start=1)}
    parts = [
        "# Results",
        "Figures are in percent and rounded to one decimal here; the CSV files beside this page hold all digits.",
        _LEGEND,
    ]
    for table in tables:
        parts += [f"## {table.layout.title}", table.layout.caption, _grid(table, numbers), *_footer(table)]
    parts += ["## Notes on what was measured here", _notes(measurements, numbers)]
    if evaluated:
        parts += ["## Backbones measured here", _backbones(evaluated)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _grid(table: Table, numbers: dict[str, int]) -> str:
    headings = [
        *(name.replace("_", " ") for name in table.layout.descriptors),
        *(column.heading for column in table.layout.columns),
    ]
    # Figures are aligned to the right.
    rules = ["---"] * len(table.layout.descriptors) + ["--:"] * len(table.layout.columns)
    lines = [_line(["figures", *headings]), _line(["---", *rules])]
    for row in table.rows:
        origin = "measured" if row.evaluated else "published"
        figures = [_figure(row, row.cells.get(column.key), numbers) for column in table.layout.columns]
        lines.append(_line([origin, *_descriptors(row), *figures]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _descriptors(row: Row) -> list[str]:
    texts = []
    for name, text in row.descriptors.items():
        is_run_name = name == "method" and row.evaluated is not None
        texts.append((_code(text) if is_run_name else _plain(text)) or _NOT_RUN)
    return texts


def _figure(row: Row, cell: Cell | None, numbers: dict[str, int]) -> str:
    if cell is None:
        return _NOT_RUN
    if row.evaluated is None:
        return cell.text
    rounded = f"{float(cell.text):.1f}" if cell.text else _NO_VALUE
    marked = f"**{rounded}**" if cell.status == "measured" else f"*[{rounded}]*"
    return f"{marked}<sup>{numbers[row.evaluated.measurements[cell.task].path]}</sup>"


def _footer(table: Table) -> list[str]:
    """Sources of the published rows and remarks on them."""
    published = [row for row in table.rows if row.evaluated is None]
    sources = dict.fromkeys(row.source for row in published)
    remarks: dict[str, list[str]] = {}
    for row in published:
        if row.note:
            remarks.setdefault(row.note, []).append(row.descriptors["method"])
    lines = [f"Published rows: {_plain(source)}." for source in sources]
    lines += [f"{', '.join(dict.fromkeys(methods))} – {_plain(note)}." for note, methods in remarks.items()]
    return ["\n".join(f"- {line}" for line in lines)]


def _notes(measurements: Sequence[Measurement], numbers: dict[str, int]) -> str:
    if not measurements:
        return "There are no results yet."
    return "\n".join(f"{numbers[one.path]}. {_note(one)}" for one in measurements)


def _note(measurement: Measurement) -> str:
    result = measurement.result
    data = "; ".join(_data(role, dataset) for role, dataset in sorted(result.datasets.items()))
    return f"{_code(measurement.path)}: {_VERDICTS[standing(result)]}. {data}. {_protocol(result)}."


def _data(role: str, dataset: Dataset) -> str:
    verb = {"test": "Tested", "train": "trained"}.get(role, role)
    name = f"{_plain(dataset.name)} {_plain(dataset.split)}"
    match dataset.coverage:
        case "full":
            return f"{verb} on {name}, whole: {dataset.num_items} items"
        case "subset":
            return f"{verb} on a part of {name}: {dataset.num_items} items"
        case "sample":
            return f"{verb} on sample data in the format of {name}: {dataset.num_items} items"


def _protocol(result: Result) -> str:
    protocol = f"Protocol {_code(result.protocol.name)} version {result.protocol.version}"
    if not result.protocol.deviations:
        return f"{protocol} as published"
    changes = [
        f"{_code(name)} {_code(json.dumps(used))} instead of {_code(json.dumps(published))}"
        for name, (published, used) in sorted(result.protocol.deviations.items())
    ]
    return f"{protocol} with {', '.join(changes)}"


def _backbones(evaluated: Sequence[Evaluated]) -> str:
    lines = [_line(["name", "architecture", "checkpoint", "format", "branch", "epoch", "backbone file sha256"])]
    lines.append(_line(["---"] * 7))
    for one in evaluated:
        record = one.any_result.backbone
        source = record.source
        epoch = str(source["epoch"]) if source["epoch"] >= 0 else _NOT_RUN
        names = [_code(str(source[key])) for key in ("file_name", "format", "branch")]
        lines.append(_line([_code(one.name), one.architecture, *names, epoch, _code(record.sha256[:16])]))
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    """A code span that stays in its cell, whatever the user called things."""
    inline = _plain(text)
    if not inline:
        return ""
    fence = "``" if "`" in inline else "`"
    padding = " " if inline.startswith("`") or inline.endswith("`") else ""
    return f"{fence}{padding}{inline}{padding}{fence}"
