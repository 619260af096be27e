from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eval.result import Result
from tables.make import build_tables
from tables.report.data import Group, group_results
from tables.report.page import render_report
from tests.tables.conftest import NO_BENCHMARK_NUMBERS
from tests.tables.report.made import write_run

WriteRun = Callable[..., Result]


def render(runs: Path, **options: Any) -> str:
    """The report on a folder of runs."""
    made = build_tables(runs, options.pop("baseline", None))
    return render_report(made, **{"max_picture_mb": 20, "max_films": 6, **options})


def groups_of(runs: Path) -> list[Group]:
    """The comparable results of a folder of runs, together."""
    return group_results([one for row in build_tables(runs).evaluated for one in row.measurements])


def write_report(runs: Path, num_backbones: int) -> Path:
    """A report on so many backbones, each on every task; one of each other standing follows four benchmark numbers."""
    settings: dict[str, Any] = {f"setting {k}": list(range(20)) for k in range(40)}
    settings["knn_features"] = "mean of the patches (the backbone has no CLS token), last block"
    standings = dict(enumerate(NO_BENCHMARK_NUMBERS.values(), start=4))
    for number in range(num_backbones):
        options: dict[str, Any] = {"settings": settings, **standings.get(number, {})}
        for task in ("davis", "detection", "segmentation", "classification"):
            values = {"J&F-Mean": 9.5 + number} if task == "davis" else {}
            intervals = {"20-NN top-1": [9.25, 11.75]} if task == "classification" else {}
            write_run(runs, f"backbone-{number:02}", task, number, values=values, intervals=intervals, **options)
    path = runs.parent / "report.html"
    path.write_text(render(runs), encoding="utf-8")
    return path


@pytest.fixture
def run(runs: Path) -> WriteRun:
    """Write a result with its artefacts, as `made.write_run` does."""
    return partial(write_run, runs)
