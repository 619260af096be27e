"""Makes the files with the tables from a folder of runs."""

import logging
from dataclasses import dataclass
from pathlib import Path

from common.files import lock_folder, remove_leftovers, write_text_atomically
from tables.collect import Evaluated, collect
from tables.compare import Comparison, compare, names_of
from tables.latex import DOCUMENT, MACROS, MACROS_FILE, render_document, render_latex
from tables.layout import layouts_for
from tables.reference import read_reference
from tables.render import render_csv, render_markdown
from tables.rows import Table, build_table

PAGE = "tables.md"
REPORT_FILE = "report.html"
PATIENCE = 600.0  # seconds to wait for others' tables, for who has run long and may not fail now

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Write the paper's tables with a row for every evaluated backbone (CSV, Markdown, LaTeX), and a report to look through."""

    runs: Path  # Folder of results; every result.json below it is read.
    output: Path
    """Folder for a CSV and a LaTeX file per table, for tables.md and tables.tex with all of them, and for report.html; made if
    absent."""
    baseline: str = ""
    """Give differences from this row: a method of the published tables, such as `DINO`, or the name of a run. Default: none."""
    max_picture_mb: float = 20
    """Limit on the pictures in report.html, in megabytes; the rest of the page takes one or two. It names what does not fit."""
    max_films: int = 6
    """Largest number of DAVIS sequences that report.html shows as films, spread evenly; it names the others."""

    def __post_init__(self) -> None:
        for name in ("max_picture_mb", "max_films"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Everything that is rendered: all tables, including those without rows, and the comparison of each."""

    evaluated: list[Evaluated]
    tables: list[Table]
    comparisons: list[Comparison]
    baseline: str | None  # The row from which differences are given.


def build_tables(runs: Path, baseline: str | None = None) -> Tables:
    """Read the results and the reference tables, join and compare them; ValueError if no row has the name of the baseline."""
    evaluated = collect(runs)
    if not evaluated:
        logger.warning("no results below %s: the tables hold the published rows only", runs)
    layouts = layouts_for([measurement.result for row in evaluated for measurement in row.measurements])
    tables = [build_table(layout, read_reference(layout), evaluated) for layout in layouts]
    comparisons = [compare(table, baseline) for table in tables]
    if baseline is not None:
        names = dict.fromkeys(name for table in tables for row in table.rows for name in names_of(row))
        if baseline not in names:
            raise ValueError(f"--baseline {baseline}: no row has this name; there are {', '.join(names)}")
        from tables.significance import add_intervals  # needs numpy and the tasks' files of single items

        comparisons = add_intervals(tables, comparisons)
    return Tables(evaluated=evaluated, tables=tables, comparisons=comparisons, baseline=baseline)


def render_tables(made: Tables) -> dict[str, str]:
    """File name -> content of every table, a pure function of the results, their items and the reference tables."""
    files = {}
    for table, comparison in zip(made.tables, made.comparisons, strict=True):
        files[f"{table.layout.name}.csv"] = render_csv(table, comparison, made.baseline is not None)
        files[f"{table.layout.name}.tex"] = render_latex(table, comparison)
    files[PAGE] = render_markdown(made.tables, made.comparisons, made.evaluated, made.baseline)
    files[MACROS_FILE] = MACROS
    files[DOCUMENT] = render_document([table.layout.name for table in made.tables if table.rows])
    return files


def make_tables(config: TablesConfig, patience: float = 0) -> list[Path]:
    """Write every table and the report once all of them could be made. Returns their paths.

    `patience` is how many seconds to wait for another process that writes tables there.
    """
    from tables.report.page import render_report  # needs jinja2, Pillow and Matplotlib, which `--help` does not wait for

    if not config.output.is_dir():
        build_tables(config.runs, config.baseline or None)  # finds mistakes before a folder is made
    with lock_folder(config.output, patience=patience):
        remove_leftovers(config.output)
        made = build_tables(config.runs, config.baseline or None)
        files = render_tables(made)
        files[REPORT_FILE] = render_report(made, max_picture_mb=config.max_picture_mb, max_films=config.max_films)
        for name, content in files.items():
            write_text_atomically(config.output / name, content)
    return [config.output / name for name in files]
