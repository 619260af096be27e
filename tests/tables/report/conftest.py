"""Runs with everything that tasks leave behind, varied by number, and the reports on them."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.result import Result, write_result
from tables.make import build_tables
from tables.report.data import Group, group_results
from tables.report.page import render_report
from tests.tables.conftest import NO_BENCHMARK_NUMBERS, make_result

SEQUENCES = tuple(f"sequence-{number:02}" for number in range(30))
ITEMS = {
    "davis": ([f"{name}_1" for name in SEQUENCES], ("J&F-Mean", "J-Mean", "F-Mean")),
    "detection": ([f"class {item}" for item in range(80)], ("bbox_mAP", "segm_mAP")),
    "segmentation": ([f"class {item}" for item in range(150)], ("IoU", "Acc")),
    "classification": ([f"class {item}" for item in range(10)], ("10-NN top-1", "20-NN top-1", "linear top-1")),
}
"""Task -> as many items as the benchmark has, and the metrics that a result states of each."""
HOSTILE = """<script>hacked=1</script>"' onclick=hacked=1 </script><img src=x onerror=hacked=1>"""

WriteRun = Callable[..., Result]


def breakdown(task: str, number: int) -> dict[str, dict[str, float]]:
    """Another percentage for every run and item; some classes have none."""
    names, metrics = ITEMS[task]
    values = [(37.0 * number + 13.7 * item) % 100 if task == "davis" or item % 11 else math.nan for item in range(len(names))]
    return {name: dict.fromkeys(metrics, value) for name, value in zip(names, values, strict=True)}


def write_pictures(folder: Path, count: int) -> None:
    """Pictures `000.png`, ... that differ."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (64, 36), (30 * number % 256, 90, 160)).save(folder / f"{number:03}.png")


def write_artefacts(folder: Path, task: str) -> dict[str, str]:
    """Files as the task writes them, but smaller; the artefacts of its result."""
    if task == "davis":
        for sequence in SEQUENCES[:3]:
            write_pictures(folder / "overlays" / sequence, 5)
        return {"masks": "masks", "overlays": "overlays"}
    if task == "classification":
        return {}
    write_pictures(folder / "predictions", 2)
    constant = {"acc": 50.0, "lr": 1e-4}
    lines = [{"iteration": n, "loss": 5 / n, "loss_cls": 3 / n, "loss_bbox": 2 / n, **constant} for n in range(1, 401)]
    (folder / "training").mkdir()
    (folder / "training/training.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return {"training_log": "training/training.jsonl"} | {f"prediction on {n}.jpg": f"predictions/00{n}.png" for n in range(2)}


def write_run(
    runs: Path, name: str, task: str, number: int = 0, *, change: Mapping[str, Any] | None = None, **options: Any
) -> Result:
    """Write a result with all its artefacts below `runs/runNUMBER/TASK`; a backbone's name may be anything.

    `change` replaces fields of the result; the further options are those of `make_result`.
    """
    folder = runs / f"run{number}" / task
    artefacts = write_artefacts(folder, task)
    made = {"artefacts": artefacts, "breakdown": breakdown(task, number), "sha256": f"{number:064x}"}
    result = make_result(name, task, **(made | options))
    result = dataclasses.replace(result, **{"config": {"seed": 0, "device": "auto"}, **(change or {})})
    write_result(folder, result)
    return result


@pytest.fixture
def run(runs: Path) -> WriteRun:
    """Write a result with its artefacts, as `write_run` does."""
    return partial(write_run, runs)


def render(runs: Path, **options: Any) -> str:
    made = build_tables(runs, options.pop("baseline", None))
    return render_report(made, **{"max_picture_mb": 20, "max_films": 6, **options})


def groups_of(runs: Path) -> list[Group]:
    return group_results([measurement for row in build_tables(runs).evaluated for measurement in row.measurements])


def write_report(runs: Path, num_backbones: int) -> Path:
    """A report on so many backbones, each on every task; one of each other standing follows four benchmark numbers."""
    settings: dict[str, Any] = {f"setting {k}": list(range(20)) for k in range(40)}
    settings["knn_features"] = "mean of the patches (the backbone has no CLS token), last block"
    standings = dict(enumerate(NO_BENCHMARK_NUMBERS.values(), start=4))
    for number in range(num_backbones):
        options: dict[str, Any] = {"settings": settings, **standings.get(number, {})}
        for task in ITEMS:
            values = {"J&F-Mean": 9.5 + number} if task == "davis" else {}
            intervals = {"20-NN top-1": [9.25, 11.75]} if task == "classification" else {}
            write_run(runs, f"backbone-{number:02}", task, number, values=values, intervals=intervals, **options)
    path = runs.parent / "report.html"
    path.write_text(render(runs), encoding="utf-8")
    return path
