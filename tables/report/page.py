"""The page: its content from the results, laid out by the templates beside this file."""

import base64
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from tables.bootstrap import RESAMPLES
from tables.collect import Evaluated
from tables.comparison import Comparison
from tables.notes import numbered
from tables.report.curves import TrainingCurves, training_curves
from tables.report.dot_chart import DotChart, dot_charts
from tables.report.films import Films, make_films
from tables.report.grids import make_grid
from tables.report.groups import Group, group_entries, number_entries
from tables.report.pictures import Gallery, PictureBudget, galleries
from tables.report.records import make_record
from tables.rows import Table

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of a group beside the tables."""

    group: Group
    """Comparable results."""
    title: str
    """Of the section; numbered where several would have the same."""
    apart: list[str]
    """Where an earlier section shows the same benchmark: why these results may not be compared with the first of those."""
    charts: list[DotChart]
    """Per sequence or class."""
    films: Films | None
    """Of DAVIS."""
    galleries: list[Gallery]
    """Predictions and other pictures."""
    curves: TrainingCurves | None
    """Of fine-tuning."""


def render_report(
    tables: Sequence[Table],
    comparisons: Sequence[Comparison],
    evaluated: Sequence[Evaluated],
    *,
    baseline: str | None = None,
    max_picture_mb: float,
    max_films: int,
) -> str:
    """The whole page, a pure function of its arguments and the files that the results name.

    Args:
        tables: In the order of the page; those without rows are left out.
        comparisons: Their marks.
        evaluated: Everything that was measured.
        baseline: From whose row the tables give differences.
        max_picture_mb: Megabytes of pictures; what does not fit is named in its place.
        max_films: DAVIS sequences to show as films, for each set of comparable results.
    """
    numbers = numbered(evaluated)
    entries = number_entries(evaluated, numbers)
    groups = group_entries(entries)
    budget = PictureBudget(limit_mb=max_picture_mb)
    films = {group.anchor: make_films(group, max_films, budget) for group in groups}
    pictures = galleries(groups, budget)
    if budget.omitted:
        logger.warning(
            "%s leaves out %d picture(s) beyond --max-picture-mb %g and names them",
            REPORT_FILE,
            len(budget.omitted),
            max_picture_mb,
        )
    style, script = _read("report.css"), _read("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            grids=[
                make_grid(table, comparison, numbers)
                for table, comparison in zip(tables, comparisons, strict=True)
                if table.rows
            ],
            baseline=baseline,
            resamples=RESAMPLES,
            sections=[
                Section(
                    group=group,
                    title=_title(group, groups),
                    apart=_apart(group, groups),
                    charts=dot_charts(group),
                    films=films[group.anchor],
                    galleries=pictures[group.anchor],
                    curves=training_curves(group),
                )
                for group in groups
            ],
            records=[make_record(entry) for entry in entries],
            num_backbones=len({entry.result.backbone.sha256 for entry in entries}),
            style=Markup(style),  # our own files, not the user's text
            script=Markup(script),
            style_digest=_digest(style),
            script_digest=_digest(script),
        )
    )


def _title(group: Group, groups: Sequence[Group]) -> str:
    alike = [other.anchor for other in groups if other.title == group.title]
    return group.title if len(alike) == 1 else f"{group.title} ({alike.index(group.anchor) + 1})"


def _apart(group: Group, groups: Sequence[Group]) -> list[str]:
    first = next(other for other in groups if other.benchmark == group.benchmark)
    return [] if first is group else group.differences(first)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code_spans"] = _code_spans
    return environment


def _code_spans(text: str) -> Markup:
    """Text whose `names` are set as code, as Markdown sets them."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts))


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a Content-Security-Policy names the content of an element."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
