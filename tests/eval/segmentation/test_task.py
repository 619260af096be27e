"""The whole task on a few drawn pairs, and the user's mistakes."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from common.cli import Interrupted
from eval.result import read_result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.task import evaluate
from tests.eval.course import OPTIONS, Course, Task, arguments, assert_same_weights, check_one_line
from tests.eval.rows import THIN_HEADS

THIN = THIN_HEADS["fpn"]
SETTLED = [*THIN, "model.backbone.drop_path_rate=0", "model.decode_head.dropout_ratio=0"]
SIDES = {"crop": 32, "train_short_side": 32, "test_short_side": 40}


def options(toy_file: Path, data: Path, output: Path, **more: Any) -> SegmentationConfig:
    values = {**OPTIONS, **SIDES, "batch_size": 4, "device_batch_size": 2, "override": THIN}
    return SegmentationConfig(backbone=toy_file, data=data, output=output, **{**values, **more})


@pytest.fixture(scope="module")
def task(toy_file: Path, ade: Path) -> Task:
    given = partial(options, toy_file, ade)
    return Task(name="segmentation", options=given, settled=SETTLED)


@pytest.fixture(scope="module")
def finished(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "segmentation"
    evaluate(task.options(output, name="toy"))
    return output


class TestCourse(Course):
    @pytest.mark.long  # detection's is run every time
    def test_two_processes_have_the_losses_of_one(self, task: Task, tmp_path: Path) -> None:
        super().test_two_processes_have_the_losses_of_one(task, tmp_path)


@HOOKS.register_module()
class SignalHook(Hook):
    """Signals the process during an update, as Slurm does before a time limit."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.iteration:
            signal.raise_signal(signal.SIGUSR2)


def test_a_signal_leaves_a_checkpoint(task: Task, finished: Path, tmp_path: Path) -> None:
    """Up to a thousand updates were lost, and a job shorter than that never got on."""
    with pytest.raises(Interrupted, match="stopped by SIGUSR2"):
        task.evaluate(task.options(tmp_path / "stopped", checkpoint_interval=1000), {"type": "SignalHook", "iteration": 3})
    with pytest.raises(ValueError, match=r"unfinished run with other inputs \(seed 0 -> 1\)"):
        task.evaluate(task.options(tmp_path / "stopped", seed=1))
    assert [path.name for path in (tmp_path / "stopped/training").glob("*.pth")] == ["iter_3.pth"]
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    result = task.evaluate(task.options(tmp_path / "stopped", checkpoint_interval=1000))
    assert_same_weights(tmp_path / "stopped", finished)
    assert result.metrics == read_result(finished / "result.json").metrics


def test_a_diverged_training_gives_no_metrics(task: Task, tmp_path: Path) -> None:
    """NaN went to the end and was tested."""
    given = task.options(tmp_path / "out")
    given = replace(given, override=[*given.override, "optim_wrapper.optimizer.lr=1e30"])
    with pytest.raises(ValueError, match=r"update \d: the loss is (nan|inf); the training has diverged"):
        task.evaluate(given)
    assert not (tmp_path / "out/result.json").exists()


def test_the_result_is_of_classes(finished: Path) -> None:
    result = read_result(finished / "result.json")
    assert list(result.metrics) == ["mIoU", "aAcc", "mAcc"]
    assert len(result.breakdown) == 150
    assert all(set(values) == {"IoU", "Acc"} for values in result.breakdown.values())
    drawn = {name: path for name, path in result.artefacts.items() if name.startswith("prediction on")}
    assert sorted(drawn.values()) == [f"predictions/00{number}.png" for number in range(3)]
    assert not math.isnan(result.breakdown["wall"]["IoU"])
    assert math.isnan(result.breakdown["sky"]["Acc"])  # labelled nowhere
    assert result.datasets["train"].num_items == 4
    assert result.datasets["test"].num_items == 3


def test_every_labelled_pixel_is_counted_once(finished: Path, ade: Path) -> None:
    counts = json.loads((finished / "class_pixels.json").read_text(encoding="utf-8"))
    assert sum(labelled for _, _, labelled in counts.values()) == 3 * 50 * (70 - 4)
    assert sum(predicted for _, predicted, _ in counts.values()) == 3 * 50 * (70 - 4)
    assert {name for name, (_, _, labelled) in counts.items() if labelled} == {"wall", "door"}


def test_a_warm_up_longer_than_the_run_is_one_line(task: Task, tmp_path: Path) -> None:
    given = task.options(tmp_path / "out")
    good = arguments(given.backbone, given.data, given.output)
    check_one_line(task, [([*good, "--iterations", "3", "--warmup_iterations", "4"], "exceeds iterations=3")])
    assert not given.output.exists()


def test_the_task_says_nothing_while_it_is_imported() -> None:
    """mmseg prints on stdout when it is imported, where a command's own result belongs."""
    command = [sys.executable, "-c", "import eval.segmentation.task, eval.detection.task"]
    imported = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert imported.stdout == ""
