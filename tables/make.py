"""Makes the files with the tables from a folder of runs."""

import logging
from dataclasses import dataclass
from pathlib import Path

from common.files import lock_folder, remove_leftovers, write_text_atomically
from tables.collect import Evaluated, collect
from tables.compare import compare, names_of
from tables.headline import Headline, make_headlines, render_headlines
from tables.latex import DOCUMENT, MACROS, MACROS_FILE, render_document, render_latex
from tables.layout import layouts_for
from tables.reference import read_reference
from tables.render import render_csv, render_full_csv, render_json_lines, render_markdown
from tables.rows import Table, build_table

SUMMARY_PAGE = "summary.md"
PAGE = "tables.md"
RESULTS_FILE = "results.jsonl"
REPORT_FILE = "report.html"
PATIENCE = 600.0  # seconds to wait for others' tables, for who has run long and may not fail now

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Write the paper's tables with a row for every evaluated backbone (CSV, Markdown, LaTeX), and a report to look through."""

    runs: Path  # Folder of results; every result.json below it is read.
    output: Path
    """Folder, made if absent, for summary.md (each run beside the published rows of its backbone), two CSV files and one in LaTeX per
    table, tables.md and tables.tex with all of them, results.jsonl (one result a line) and report.html."""
    first: str = ""  # Name of the run that comes first in summary.md and report.html; by default the first by name.
    baseline: str = ""
    """Give differences from this row: a method of the published tables, such as `DINO`, or the name of a run. Default: none."""
    max_picture_mb: float = 6
    """Limit on the pictures in report.html, in megabytes; the rest of the page takes one or two. It names what does not fit."""
    max_films: int = 6
    """Largest number of DAVIS sequences that report.html shows as films, spread evenly; it names the others."""

    def __post_init__(self) -> None:
        for name, value in (("max_picture_mb", self.max_picture_mb), ("max_films", self.max_films)):
            if not value >= 0:
                raise ValueError(f"{name}={value} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Everything that is rendered: all tables, including those without rows."""

    evaluated: list[Evaluated]
    tables: list[Table]
    headlines: list[Headline]
    baseline: str | None  # The row from which differences are given.


def _join(runs: Path, baseline: str | None, first: str) -> tuple[list[Evaluated], list[Table]]:
    """The results and the published rows in tables, compared but not tested; this finds every mistake of the user's.

    ValueError if no row has the name of the baseline, or no run has the name `first`.
    """
    evaluated = collect(runs)
    if not evaluated:
        logger.warning("no results below %s: the tables hold the published rows only", runs)
    layouts = layouts_for([measurement.result for row in evaluated for measurement in row.measurements])
    tables = [build_table(layout, read_reference(layout), evaluated) for layout in layouts]
    if baseline is not None:
        names = dict.fromkeys(name for table in tables for row in table.rows for name in names_of(row))
        if baseline not in names:
            raise ValueError(f"--baseline {baseline}: no row has this name; there are {', '.join(names)}")
    runs_found = dict.fromkeys(name for row in evaluated for name in row.run_names)
    if first and first not in runs_found:
        raise ValueError(f"--first {first}: no run has this name; there are {', '.join(runs_found) or 'none'}")
    for table in tables:
        compare(table, baseline)
    return evaluated, tables


def build_tables(runs: Path, baseline: str | None = None, first: str = "") -> Tables:
    """Read the results and the reference tables, join, compare and test them; ValueError as for `_join`."""
    # These need numpy and the tasks' files of single items.
    from tables.significance import add_intervals, interval_from

    evaluated, tables = _join(runs, baseline, first)
    if baseline is not None:
        add_intervals(tables)
    logger.info("testing the first run's differences from the published rows by its items")
    headlines = make_headlines(tables, evaluated, first, interval_from)
    return Tables(evaluated=evaluated, tables=tables, headlines=headlines, baseline=baseline)


def render_tables(made: Tables) -> dict[str, str]:
    """File name -> content of every table, a pure function of the results, their items and the reference tables."""
    files = {SUMMARY_PAGE: render_headlines(made.headlines)}
    for table in made.tables:
        files[f"{table.layout.name}.csv"] = render_csv(table)
        files[f"{table.layout.name}_full.csv"] = render_full_csv(table, made.baseline is not None)
        files[f"{table.layout.name}.tex"] = render_latex(table)
    files[PAGE] = render_markdown(made.tables, made.baseline)
    files[RESULTS_FILE] = render_json_lines(made.evaluated)
    files[MACROS_FILE] = MACROS
    files[DOCUMENT] = render_document([table.layout.name for table in made.tables if table.rows])
    return files


def make_tables(config: TablesConfig, patience: float = 0) -> list[Path]:
    """Write every table and the report once all of them could be made. Returns their paths.

    `patience` is how many seconds to wait for another process that writes tables there.
    """
    from tables.report.page import render_report  # needs jinja2, Pillow and Matplotlib, which `--help` does not wait for

    if not config.output.is_dir():
        _join(config.runs, config.baseline or None, config.first)  # finds mistakes before a folder is made
    with lock_folder(config.output, patience=patience):
        remove_leftovers(config.output)
        made = build_tables(config.runs, config.baseline or None, config.first)
        files = render_tables(made)
        files[REPORT_FILE] = render_report(made, max_picture_mb=config.max_picture_mb, max_films=config.max_films)
        for name, content in files.items():
            write_text_atomically(config.output / name, content)
    return [config.output / name for name in files]
