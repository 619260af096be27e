"""From a folder of runs to the files with the tables."""

import logging
from dataclasses import dataclass
from pathlib import Path

from common.files import write_text_atomically
from tables.collect import collect
from tables.layout import LAYOUTS
from tables.reference import read_reference
from tables.render_csv import render_csv
from tables.render_markdown import render_markdown
from tables.rows import build_table

PAGE = "tables.md"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Write the paper's tables with a row for every evaluated backbone: CSV files and one Markdown page."""

    runs: Path
    """Folder of results; every result.json below it is read."""
    output: Path
    """Folder for main.csv, components.csv, compatibility.csv and tables.md; made if absent."""


def render_all(runs: Path) -> dict[str, str]:
    """File name -> content of every table, a pure function of the result files and the reference tables.

    Raises:
        ValueError: As `collect` and `read_reference`.
    """
    evaluated = collect(runs)
    if not evaluated:
        logger.warning("no results below %s: the tables hold the published rows only", runs)
    tables = [build_table(layout, read_reference(layout), evaluated) for layout in LAYOUTS]
    files = {f"{table.layout.name}.csv": render_csv(table) for table in tables}
    return {**files, PAGE: render_markdown(tables, evaluated)}


def make_tables(config: TablesConfig) -> list[Path]:
    """Write every table, after all of them could be made. Returns their paths."""
    files = render_all(config.runs)
    paths = []
    for name, content in files.items():
        path = config.output / name
        write_text_atomically(path, content)
        paths.append(path)
    return paths
