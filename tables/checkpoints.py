"""Where the published checkpoints lie: `reference/checkpoints.csv`. A cell that nobody states is empty."""

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path

from tables.reference import REFERENCE_FOLDER

CHECKPOINTS_FILE = REFERENCE_FOLDER / "checkpoints.csv"

_DRIVE_PAGE = re.compile(r"https://drive\.google\.com/file/d/([\w-]+)/view.*")


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """One published file."""

    name: str
    """What `tools/fetch_checkpoint.py` calls it."""
    method: str
    """As in the tables of results."""
    backbone: str
    """As in the tables of results, such as `ViT-S/16`."""
    pretraining_data: str
    """On which images it was trained."""
    epochs: str
    """For how long."""
    address: str
    """As its authors publish it."""
    file_name: str
    """The file's name here."""
    md5: str
    """The digest, or as many of its first digits as the authors print."""
    licence: str
    """Of the weights or of the repository that publishes them, as it states."""
    format: str
    """Layout, a name of `backbones.convert.FORMATS`."""
    branch: str
    """Which of its networks the published numbers need."""
    source: str
    """Where the address and the licence are stated."""
    note: str
    """What a user of the file should know."""

    @property
    def download_address(self) -> str:
        """The address of the bytes: for Google Drive another one than that of the page, without its question about big files."""
        if match := _DRIVE_PAGE.fullmatch(self.address):
            return f"https://drive.usercontent.google.com/download?id={match[1]}&export=download&confirm=t"
        return self.address

    def is_architecture(self, name: str) -> bool:
        """Whether `tables.architecture.architecture_name` of a spec is this backbone, be its number of heads unusual."""
        return name == self.backbone or name.startswith(f"{self.backbone}, ")


def read_checkpoints(path: Path = CHECKPOINTS_FILE) -> dict[str, PublishedCheckpoint]:
    """The table by name.

    Raises:
        ValueError: If the file is absent or has other columns, cells are missing, or two rows have one name; names file and line.
    """
    header = [field.name for field in fields(PublishedCheckpoint)]
    if not path.is_file():
        raise ValueError(f"{path}: no such reference table; restore it from the repository")
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream, strict=True))
    if not lines or lines[0] != header:
        raise ValueError(f"{path}: its header must be {','.join(header)}")
    rows: dict[str, PublishedCheckpoint] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {number}: {len(cells)} cells, wanted {len(header)}")
        row = PublishedCheckpoint(**dict(zip(header, cells, strict=True)))
        if row.name in rows:
            raise ValueError(f"{path}, line {number}: a second row called {row.name}")
        rows[row.name] = row
    return rows
