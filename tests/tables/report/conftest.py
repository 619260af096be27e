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
    return render_report(made, **{"max_picture_mb": 20, "max_films": 6, **options})


def write_report(runs: Path, num_backbones: int) -> Path:
    """A report on so many backbones, each on every task; one of each other standing follows four benchmark numbers."""
    standings: list[dict[str, Any]] = [{"deviations": {"topk": [5, 7]}}, {"coverage": "subset"}, {"coverage": "sample"}]
    for number in range(num_backbones):
        name = f"backbone-{number:02}"
        settings = {f"setting {k}": list(range(20)) for k in range(40)}
        options: dict[str, Any] = standings[number - 4] if 4 <= number < 7 else {}
        words = {"knn_features": "mean of the patches (the backbone has no CLS token), last block"}
        for task in ("davis", "detection", "segmentation", "classification"):
            values = {"J&F-Mean": 9.5 + number} if task == "davis" else {}
            intervals = {"20-NN top-1": [9.25, 11.75]} if task == "classification" else {}
            write_run(runs, name, task, number, values=values, intervals=intervals, settings={**settings, **words}, **options)
    path = runs.parent / "report.html"
    path.write_text(render(runs), encoding="utf-8")
    return path


@pytest.fixture
def run(runs: Path) -> WriteRun:
    """Write a result with its artefacts, see `made.write_run`."""

    def write_one(name: str, task: str, number: int = 0, **options: Any) -> Result:
        return write_run(runs, name, task, number, **options)

    return write_one
