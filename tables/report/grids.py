"""The tables as the page shows them: every value with its standing and the place of its provenance."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from eval.tasks import BENCHMARKS, Column
from tables.compare import Comparison, Mark, marked
from tables.render import rounded
from tables.report.data import sentence
from tables.rows import Cell, Row, Status, Table, printed, signed

_LETTERS: dict[Status, str] = {"measured-deviating": "D", "measured-subset": "P", "measured-sample": "S"}
"""Letters beside values that are no benchmark numbers; the page explains them."""
_NOT_MEASURED = "–"


def make_grid(table: Table, comparison: Comparison, numbers: Mapping[str, int]) -> dict[str, Any]:
    """A table as the template's macro `table` shows it.

    Args:
        table: Rows with their cells.
        comparison: Their marks.
        numbers: Path of a result -> its number on the page.
    """
    layout = table.layout
    others = [name for name in layout.descriptors if name != "method"]
    titles = groupby(BENCHMARKS[column.benchmark].title for column in layout.columns)
    rows, origins = [], []
    for number, (row, entries) in enumerate(marked(table, comparison)):
        # A row of single results has no origin of its own: each value leads to its result.
        prefix = {"published": "p", "mean": "s"}.get(row.kind, "")
        anchor = f"{prefix}-{layout.name}-{number}" if prefix else ""
        kind = {"published": "published", "mean": f"mean of {len(row.seeds)} seeds"}.get(row.kind, "measured")
        words = [row.descriptors["method"], kind, *(row.descriptors[name] for name in others)]
        values = [_value(column, cell, mark, anchor, numbers) for column, cell, mark in entries]
        rows.append({"measured": row.kind != "published", "cells": [*map(_word, words), *values]})
        if anchor:
            origins.append(_origin(row, anchor, numbers))
    return {
        "anchor": f"table-{layout.name}",
        "layout": layout,
        "spans": [("", len(others) + 2), *((title, len(list(columns))) for title, columns in titles)],
        "columns": [
            ("method", False),
            ("figures", False),
            *((name.replace("_", " "), _are_numbers(table.rows, name)) for name in others),
            *((column.heading, True) for column in layout.columns),
        ],
        "rows": rows,
        "origins": origins,
    }


def _word(text: str) -> dict[str, str]:
    return {"text": text or _NOT_MEASURED, "sort": text, "anchor": ""}


def _value(column: Column, cell: Cell | None, mark: Mark, row_anchor: str, numbers: Mapping[str, int]) -> dict[str, str]:
    if cell is None:
        return {"text": _NOT_MEASURED, "sort": "", "anchor": ""}
    paths = [one.path for one in cell.measurements]
    star = "*" if mark.significant else ""
    return {
        "text": rounded(cell),
        "sort": cell.text,
        "status": cell.status,
        "letter": _LETTERS.get(cell.status, ""),
        "rank": mark.rank or "",
        "spread": "" if cell.spread is None else f"±{printed(cell.spread)}",
        "interval": "" if cell.interval_95 is None else "–".join(map(printed, cell.interval_95)),
        "delta": "" if mark.delta is None else f"({signed(mark.delta)}{star})",
        "incomparable": mark.incomparable,
        "anchor": f"r{numbers[paths[0]]}" if len(paths) == 1 else row_anchor,
        "note": ", ".join(str(numbers[path]) for path in paths),
        "exact": _exact(cell),
        "column": f"{BENCHMARKS[column.benchmark].title} {column.heading}",
        "verdict": sentence(cell.status) + (f"; does not compete: {mark.incomparable}" if mark.incomparable else ""),
    }


def _exact(cell: Cell) -> str:
    text = cell.text or "no value"
    if cell.spread is not None:
        text += f", standard deviation {cell.spread!r} over {len(cell.measurements)} seeds"
    if cell.interval_95 is not None:
        text += f", 95 % interval {cell.interval_95[0]:.2f} to {cell.interval_95[1]:.2f}"
    return text


def _origin(row: Row, anchor: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """What a row without a single result is from: a publication, or several seeds with (name, anchor, values) each."""
    title = ", ".join(text for text in row.descriptors.values() if text)
    if row.kind == "published":
        text = row.source + (f". Remark: {row.note}" if row.note else "")
        return {"anchor": anchor, "title": title, "text": text, "seeds": []}
    seeds = []
    for seed in row.seeds:
        cells = seed.cells.values()
        values = ", ".join(f"{cell.column.heading} {rounded(cell)}" for cell in cells)
        paths = dict.fromkeys(one.path for cell in cells for one in cell.measurements)
        seeds += [(seed.descriptors["method"], f"r{numbers[path]}", values) for path in paths]
    text = f"Mean over {len(row.seeds)} seeds of one recipe, with their standard deviation"
    return {"anchor": anchor, "title": title, "text": text, "seeds": seeds}


def _are_numbers(rows: Sequence[Row], descriptor: str) -> bool:
    """Whether a column can be sorted by number."""
    texts = [row.descriptors[descriptor] for row in rows if row.descriptors[descriptor]]
    try:
        return bool([float(text) for text in texts])
    except ValueError:
        return False
