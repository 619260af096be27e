"""Reads `reference/*.csv`: the published tables, and the published checkpoints with their addresses."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tables.layout import Layout
from tables.rows import Cell, Row

REFERENCE_FOLDER = Path(__file__).parent / "reference"
CHECKPOINTS_FILE = REFERENCE_FOLDER / "checkpoints.csv"

_DRIVE_PAGE = re.compile(r"https://drive\.google\.com/file/d/([\w-]+)/view.*")


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """A published checkpoint; a field that nobody states is empty.

    `name` is the one that `tools/fetch_checkpoint.py` takes; `method` and `backbone` are as in the tables of results. `md5` may hold
    only the first digits of the digest, if the authors print no more. `licence` is that of the weights, or of the repository that
    publishes them; `source` says where address and licence are stated. `format` is a layout of `backbones`; `branch` names the
    network behind the published numbers.
    """

    name: str
    method: str
    backbone: str
    pretraining_data: str
    epochs: str
    address: str
    file_name: str
    md5: str
    licence: str
    format: str
    branch: str
    source: str
    note: str

    @property
    def download_address(self) -> str:
        """The address of the file itself. On Google Drive it differs from that of the page, which asks a question about big files."""
        if match := _DRIVE_PAGE.fullmatch(self.address):
            return f"https://drive.usercontent.google.com/download?id={match[1]}&export=download&confirm=t"
        return self.address

    def is_architecture(self, name: str) -> bool:
        """Whether an architecture in words, such as `ViT-S/16, 8 heads`, is this backbone; its number of heads may be unusual."""
        return name == self.backbone or name.startswith(f"{self.backbone}, ")


def read_reference(layout: Layout, folder: Path = REFERENCE_FOLDER) -> list[Row]:
    """Read a published table; the list is empty for a layout without published rows.

    ValueError, with file and line, if the file is absent, its columns are not those of the layout, or a value is not a number.
    """
    if not (REFERENCE_FOLDER / f"{layout.name}.csv").is_file():
        return []
    header = [*layout.descriptors, *(column.key for column in layout.columns), "source", "note"]
    rows = []
    for place, record in _records(folder / f"{layout.name}.csv", header):
        cells = {}
        for column in layout.columns:
            if text := record[column.key]:
                if not re.fullmatch(r"\d+(\.\d+)?", text):
                    raise ValueError(f"{place}, {column.key}: {text!r} is not a number")
                cells[column.key] = Cell(text=text, status="published", column=column)
        descriptors = {name: record[name] for name in layout.descriptors}
        rows.append(Row(kind="published", descriptors=descriptors, cells=cells, source=record["source"], note=record["note"]))
    return rows


def read_checkpoints(path: Path = CHECKPOINTS_FILE) -> dict[str, PublishedCheckpoint]:
    """Read the published checkpoints, by name; ValueError, with file and line, for a damaged file or two rows of one name."""
    rows: dict[str, PublishedCheckpoint] = {}
    for place, record in _records(path, [field.name for field in fields(PublishedCheckpoint)]):
        row = PublishedCheckpoint(**record)
        if row.name in rows:
            raise ValueError(f"{place}: a second row called {row.name}")
        rows[row.name] = row
    return rows


def _records(path: Path, header: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a reference file, each with its place for messages."""
    if not path.is_file():
        raise ValueError(f"{path}: no such reference table; restore it from the repository")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error}); restore it from the repository") from error
    if not lines or lines[0] != list(header):
        raise ValueError(f"{path}: its header must be {','.join(header)}")
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {number}: {len(cells)} cells, wanted {len(header)}")
        yield f"{path}, line {number}", dict(zip(header, cells, strict=True))
