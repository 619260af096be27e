"""From a folder of runs to the files with the tables."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import write_text_atomically
from tables.collect import Evaluated, collect
from tables.comparison import Comparison, compare, names_of
from tables.layout import LAYOUTS, classification_layout
from tables.reference import read_reference
from tables.render_csv import render_csv
from tables.render_latex import DOCUMENT, MACROS, render_document, render_latex, render_macros
from tables.render_markdown import render_markdown
from tables.report.page import REPORT_FILE, render_report
from tables.rows import Table, build_table

PAGE = "tables.md"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Write the paper's tables with a row for every evaluated backbone (CSV, Markdown, LaTeX), and a report to look through."""

    runs: Path
    """Folder of results; every result.json below it is read."""
    output: Path
    """Folder for a CSV and a LaTeX file per table, for tables.md and tables.tex with all of them, and for report.html; made if
    absent."""
    baseline: str = ""
    """Give differences from this row: a method of the published tables, such as `DINO`, or the name of a run. By default none."""
    max_picture_mb: float = 20
    """Most megabytes of pictures in report.html, which beside them takes one or two; it names those that do not fit."""
    max_films: int = 6
    """Most DAVIS sequences that report.html shows as films, spread evenly; it names the others."""

    def __post_init__(self) -> None:
        """Reject limits that mean nothing."""
        for name in ("max_picture_mb", "max_films"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Everything that is rendered."""

    evaluated: list[Evaluated]
    """What was measured."""
    tables: list[Table]
    """All tables, also those without rows."""
    comparisons: list[Comparison]
    """The marks of each."""
    baseline: str | None
    """From which row differences are given."""


def build_tables(runs: Path, baseline: str | None = None) -> Tables:
    """Read the results and the reference tables, join and compare them.

    Raises:
        ValueError: As `collect` and `read_reference`; if no row is called as the baseline.
    """
    evaluated = collect(runs)
    if not evaluated:
        logger.warning("no results below %s: the tables hold the published rows only", runs)
    results = [measurement.result for one in evaluated for measurement in one.measurements]
    layouts = (*LAYOUTS, classification_layout(results))
    tables = [build_table(layout, read_reference(layout), evaluated) for layout in layouts]
    if baseline is not None:
        _check_baseline(tables, baseline)
    return Tables(
        evaluated=evaluated, tables=tables, comparisons=[compare(table, baseline) for table in tables], baseline=baseline
    )


def render_all(runs: Path, baseline: str | None = None) -> dict[str, str]:
    """File name -> content of every table, a pure function of the results, their items and the reference tables.

    Raises:
        ValueError: As `build_tables`.
    """
    return render_tables(build_tables(runs, baseline))


def render_tables(made: Tables) -> dict[str, str]:
    """File name -> content of every table."""
    files = {}
    for table, comparison in zip(made.tables, made.comparisons, strict=True):
        files[f"{table.layout.name}.csv"] = render_csv(table, comparison, made.baseline is not None)
        files[f"{table.layout.name}.tex"] = render_latex(table, comparison)
    files[PAGE] = render_markdown(made.tables, made.comparisons, made.evaluated, made.baseline)
    files[MACROS] = render_macros()
    files[DOCUMENT] = render_document([table.layout.name for table in made.tables if table.rows])
    return files


def make_tables(config: TablesConfig) -> list[Path]:
    """Write every table and the report, after all of them could be made. Returns their paths."""
    made = build_tables(config.runs, config.baseline or None)
    report = render_report(
        made.tables,
        made.comparisons,
        made.evaluated,
        baseline=made.baseline,
        max_picture_mb=config.max_picture_mb,
        max_films=config.max_films,
    )
    paths = []
    for name, content in {**render_tables(made), REPORT_FILE: report}.items():
        path = config.output / name
        write_text_atomically(path, content)
        paths.append(path)
    return paths


def _check_baseline(tables: Sequence[Table], baseline: str) -> None:
    names = dict.fromkeys(name for table in tables for row in table.rows for name in names_of(row))
    if baseline not in names:
        raise ValueError(f"--baseline {baseline}: no row is called so; there are {', '.join(names)}")
