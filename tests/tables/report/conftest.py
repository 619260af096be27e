from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.result import Result
from tables.make import build_tables
from tables.report.page import render_report
from tests.tables.report.made import write_run

WriteRun = Callable[..., Result]


def render(runs: Path, **options: Any) -> str:
    """The report on a folder of runs."""
    made = build_tables(runs, options.pop("baseline", None))
    return render_report(
        made.tables,
        made.comparisons,
        made.evaluated,
        baseline=made.baseline,
        **{"max_picture_mb": 20, "max_films": 6, **options},
    )


@pytest.fixture
def run(runs: Path) -> WriteRun:
    """Write a result with its artefacts, see `made.write_run`."""

    def write_one(name: str, task: str, number: int = 0, **options: Any) -> Result:
        return write_run(runs, name, task, number, **options)

    return write_one
