"""The published tables, `reference/*.csv`, as the paper prints them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from tables.layout import Layout

REFERENCE_FOLDER = Path(__file__).parent / "reference"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a published table."""

    descriptors: dict[str, str]
    """Descriptor -> text, empty where the source states nothing."""
    values: dict[str, str]
    """Column key -> the digits as printed; empty where the source states none."""
    source: str
    """Where it was published."""
    note: str
    """What a reader of the row should know."""


def read_reference(layout: Layout, folder: Path = REFERENCE_FOLDER) -> list[PublishedRow]:
    """Read a published table; a layout without published rows has none.

    Raises:
        ValueError: If the file is absent, has other columns than the layout, or a cell that is no number; names file and line.
    """
    if not layout.published:
        return []
    path = folder / f"{layout.name}.csv"
    keys = [column.key for column in layout.columns]
    header = [*layout.descriptors, *keys, "source", "note"]
    if not path.is_file():
        raise ValueError(f"{path}: no such reference table; restore it from the repository")
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream, strict=True))
    if not lines or lines[0] != header:
        raise ValueError(f"{path}: its header must be {','.join(header)}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {number}: {len(cells)} cells, wanted {len(header)}")
        record = dict(zip(header, cells, strict=True))
        for key in keys:
            _check_number(record[key], f"{path}, line {number}, {key}")
        rows.append(
            PublishedRow(
                descriptors={name: record[name] for name in layout.descriptors},
                values={key: record[key] for key in keys},
                source=record["source"],
                note=record["note"],
            )
        )
    return rows


def _check_number(text: str, place: str) -> None:
    if not text:
        return
    try:
        float(text)
    except ValueError as error:
        raise ValueError(f"{place}: {text!r} is no number") from error
