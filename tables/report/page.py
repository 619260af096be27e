"""Renders the page from the results by the template in `web/`."""

import base64
import hashlib
import logging
import math
import re
from datetime import timedelta
from pathlib import Path

import jinja2
from markupsafe import Markup

from backbones.spec import architecture_name
from eval.tasks import BENCHMARKS
from tables.comparability import deviations_of
from tables.compare import RESAMPLES
from tables.make import REPORT_FILE, Tables
from tables.render import rounded
from tables.report.data import group_results, make_grid, make_record, make_section, text_of, verdict_of
from tables.report.pictures import PictureBudget, galleries, make_films
from tables.report.plots import item_charts, training_curves
from tables.report.pretraining import pretrainings
from tables.rows import printed, signed

logger = logging.getLogger(__name__)

_WEB = Path(__file__).parent / "web"
# Control characters, those that turn the direction of text, and halves of characters, which no file holds.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def render_report(made: Tables, *, max_picture_mb: float, max_films: int) -> str:
    """The whole page, a pure function of its arguments and of the files that the results name.

    Args:
        made: The tables, in the order of the page, which leaves out tables without rows.
        max_picture_mb: Limit on the images in megabytes; the page names those that do not fit.
        max_films: Largest number of DAVIS sequences to show as films, for each set of comparable results.
    """
    measurements = [measurement for row in made.evaluated for measurement in row.measurements]
    groups = group_results(measurements)
    budget = PictureBudget(limit_mb=max_picture_mb)
    films = {group.anchor: make_films(group, max_films, budget) for group in groups}
    pictures = galleries(groups, budget)
    pretrained = pretrainings(measurements, budget)
    if budget.omitted:
        message = "%s leaves out %d picture(s) beyond --max-picture-mb %g and names them"
        logger.warning(message, REPORT_FILE, len(budget.omitted), max_picture_mb)
    style, script = ((_WEB / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    page = (
        _environment()
        .get_template("report.html")
        .render(
            grids=[make_grid(table) for table in made.tables if table.rows],
            benchmarks=BENCHMARKS,
            headlines=made.headlines,
            pretrainings=pretrained,
            baseline=made.baseline,
            resamples=RESAMPLES,
            sections=[
                {
                    **make_section(group, groups),
                    "charts": item_charts(group),
                    "films": films[group.anchor],
                    "galleries": pictures[group.anchor],
                    "curves": training_curves(group),
                }
                for group in groups
            ],
            records=[make_record(measurement) for measurement in measurements],
            num_backbones=len({measurement.result.backbone.sha256 for measurement in measurements}),
            style=Markup(style),  # our own files, not the user's text
            script=Markup(script),
            style_digest=_digest(style),
            script_digest=_digest(script),
        )
    )
    return _UNSEEN.sub(" ", page)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_WEB),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        architecture=architecture_name,
        code_spans=_code_spans,
        deviations=deviations_of,
        duration=lambda seconds: timedelta(seconds=round(seconds)),
        printed=printed,
        rounded=rounded,
        signed=signed,
        text=text_of,
        verdict=verdict_of,
    )
    environment.tests["finite"] = math.isfinite
    return environment


def _code_spans(text: str) -> Markup:
    """Set the `names` in a text as code, as Markdown does."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts))


def _digest(text: str) -> str:
    """The digest by which a Content-Security-Policy names the content of an element."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
