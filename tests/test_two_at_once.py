"""The same command started twice at the same moment: one does the work, the other says who holds the folder, nothing is damaged."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import eval.__main__
import pretrain.__main__
import tables.__main__
from eval.result import write_result
from eval.tasks import TASKS
from tests.commands import (
    Main,
    draw_inputs,
    eval_all_in_one_process,
    every_task,
    files_below,
    metrics_below,
    start,
    statuses,
    task_arguments,
)
from tests.pretrain.conftest import tiny_run
from tests.tables.conftest import make_result
from tools import ablation, make_sample_data


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, checkpoint and backbone, results for tables, and the ablation's data."""
    folder = draw_inputs(tmp_path_factory.mktemp("inputs"))
    for task in TASKS:
        write_result(folder / "runs/dino" / task, make_result("dino", task))
    (folder / "ablation/coco").mkdir(parents=True)
    (folder / "ablation/coco/train2017").symlink_to(folder / "photos")
    (folder / "ablation/DAVIS").symlink_to(folder / "DAVIS")
    return folder


def command(name: str, inputs: Path, output: Path) -> tuple[Main, Sequence[object]]:
    if name in TASKS:
        return eval.__main__.main, [*task_arguments(name, inputs / "toy.safetensors", inputs, output)]
    tiny = ["train.epochs=2", "backbone.depth=2", "views.local_crops=1", "data.workers=0"]
    places = ["--data", inputs / "ablation", "--runs", output / "runs", "--output", output / "results"]
    return {
        "pretrain": (pretrain.__main__.main, tiny_run(inputs / "photos", output)),
        "tables": (tables.__main__.main, ["--runs", inputs / "runs", "--output", output]),
        "sample data": (make_sample_data.main, ["--output", output]),
        "eval_all": (eval_all_in_one_process, every_task(inputs, output)),
        "ablation": (ablation.main, ["components", "--only", "a", "--scale", "tiny", *places, "--pretraining", *tiny]),
    }[name]


@pytest.mark.long
@pytest.mark.parametrize("name", [*TASKS, "pretrain", "tables", "sample data", "eval_all", "ablation"])
def test_two_at_once(name: str, inputs: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    assert statuses(start(*command(name, inputs, alone), logs[2])) == [0], logs[2].read_text()
    processes = start(*command(name, inputs, both), *logs[:2])
    ended = statuses(processes)
    said = [log.read_text() for log in logs[:2]]
    assert sorted(ended) == [0, 2], said
    loser = ended.index(2)
    holder = rf"error: {both}\S* is in use by process {processes[1 - loser].pid} on \S+ since 20\d\d-.*; wait for its end"
    assert re.search(holder, said[loser]), said[loser]
    assert "Traceback" not in said[loser]
    assert metrics_below(both) == metrics_below(alone)
    assert files_below(both) == files_below(alone)
    assert statuses(start(*command(name, inputs, both), logs[2])) == [0], logs[2].read_text()
    assert metrics_below(both) == metrics_below(alone)
