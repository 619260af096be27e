"""Runs with everything that tasks leave behind, varied by number, and the reports on them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from PIL import Image

from eval.result import Result, write_result
from tables.make import build_tables
from tables.report.data import Group, group_results
from tables.report.page import render_report
from tests.tables.conftest import make_result

ITEMS = {
    "davis": (30, ("J&F-Mean", "J-Mean", "F-Mean")),
    "detection": (80, ("bbox_mAP", "segm_mAP")),
    "segmentation": (150, ("IoU", "Acc")),
    "classification": (10, ("10-NN top-1", "20-NN top-1", "linear top-1")),
}
"""Task -> how many items the benchmark has, and the metrics that a result states of each."""
HOSTILE = """<script>hacked=1</script>"' onclick=hacked=1 </script><img src=x onerror=hacked=1>"""


def write_pictures(folder: Path, count: int) -> None:
    """Pictures `000.png`, ... that differ."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (64, 36), (30 * number % 256, 90, 160)).save(folder / f"{number:03}.png")


def write_artefacts(folder: Path, task: str) -> dict[str, str]:
    """Files as the task writes them, but smaller; the artefacts of its result."""
    if task == "davis":
        for number in range(3):
            write_pictures(folder / f"overlays/sequence-0{number}", 5)
        return {"masks": "masks", "overlays": "overlays"}
    if task == "classification":
        return {}
    write_pictures(folder / "predictions", 2)
    lines = [{"iteration": n, "loss": 5 / n, "loss_cls": 3 / n, "loss_bbox": 2 / n, "lr": 1e-4} for n in range(1, 401)]
    (folder / "training").mkdir()
    (folder / "training/training.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return {"training_log": "training/training.jsonl"} | {f"prediction on {n}.jpg": f"predictions/00{n}.png" for n in range(2)}


def write_run(
    runs: Path, name: str, task: str, number: int = 0, change: dict[str, Any] | None = None, **options: Any
) -> Result:
    """Write a result with all its artefacts below `runs/runNUMBER/TASK`; a backbone's name may be anything.

    `change` replaces fields of the result; the further options are those of `make_result`.
    """
    folder = runs / f"run{number}" / task
    num_items, metrics = ITEMS[task]
    values = {f"item {item}_1": (37.0 * number + 13.7 * item) % 100 for item in range(num_items)}
    made = {
        "artefacts": write_artefacts(folder, task),
        "breakdown": {item: dict.fromkeys(metrics, value) for item, value in values.items()},
        "sha256": f"{number:064x}",
    }
    result = make_result(name, task, **(made | options))
    result = dataclasses.replace(result, **{"config": {"seed": 0, "device": "auto"}, **(change or {})})
    write_result(folder, result)
    return result


def render(runs: Path, baseline: str | None = None) -> str:
    return render_report(build_tables(runs, baseline), max_picture_mb=20, max_films=6)


def groups_of(runs: Path) -> list[Group]:
    return group_results([measurement for row in build_tables(runs).evaluated for measurement in row.measurements])
