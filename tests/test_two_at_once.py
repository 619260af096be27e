"""The same command started twice at the same moment: one does the work, the other says who holds the folder, nothing is damaged."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import eval.__main__
import eval.davis.scores
import pretrain.__main__
import tables.__main__
from common.files import file_sha256
from eval.result import read_result, write_result
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
from tools import ablation, convert_checkpoint, make_sample_data


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


@pytest.mark.long
@pytest.mark.parametrize("name", ["scores", "conversion"])
def test_two_that_only_write_files_both_end(name: str, inputs: Path, tmp_path: Path) -> None:
    masks = inputs / "DAVIS/Annotations/480p"
    main, arguments = {
        "scores": (eval.davis.scores.main, ["--annotations", masks, "--predictions", masks, "--split", "all", "--output"]),
        "conversion": (convert_checkpoint.main, [inputs / "toy.pth"]),
    }[name]
    alone, both = tmp_path / "alone/out.safetensors", tmp_path / "both/out.safetensors"
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    assert statuses(start(main, [*arguments, alone], logs[2])) == [0], logs[2].read_text()
    assert statuses(start(main, [*arguments, both], *logs[:2])) == [0, 0], logs[0].read_text() + logs[1].read_text()
    assert contents(both.parent) == contents(alone.parent)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder) if not name.endswith(".lock")}


@pytest.mark.long
def test_two_checkpoints_of_one_name_do_not_mix(inputs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other/toy.pth"
    other.parent.mkdir()
    torch.save({name: 2 * weight for name, weight in torch.load(inputs / "toy.pth").items()}, other)
    logs, (first, *arguments) = (
        [tmp_path / f"{number}.log" for number in range(2)],
        every_task(inputs, tmp_path, ["classification"]),
    )
    checkpoints = Path(first), other
    both = [start(eval_all_in_one_process, [path, *arguments], log)[0] for path, log in zip(checkpoints, logs, strict=True)]
    ended = statuses(both)
    assert sorted(ended) == [0, 2], [log.read_text() for log in logs]
    assert re.search("is in use by process|was made from another checkpoint", logs[ended.index(2)].read_text())
    result = read_result(tmp_path / "runs/toy/classification/result.json")
    assert result.backbone.source["sha256"] == file_sha256(checkpoints[ended.index(0)])
