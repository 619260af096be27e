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
from tests.architectures import ANY
from tests.eval.course import OPTIONS, Course, Task, assert_same_weights, weights_of_one_update
from tests.eval.rows import ROWS, THIN_HEADS, toy

THIN = THIN_HEADS["fpn"]
SETTLED = [*THIN, "model.backbone.drop_path_rate=0", "model.decode_head.dropout_ratio=0"]
SIDES = {"crop": 32, "train_short_side": 32, "test_short_side": 40}


def options(toy_file: Path, data: Path, output: Path, **more: Any) -> SegmentationConfig:
    values = {**OPTIONS, **SIDES, "backbone": toy_file, "batch_size": 4, "device_batch_size": 2, "override": THIN}
    return SegmentationConfig(data=data, output=output, **{**values, **more})


@pytest.fixture(scope="module")
def task(toy_file: Path, ade: Path) -> Task:
    return Task(name="segmentation", options=partial(options, toy_file, ade), settled=SETTLED)


@HOOKS.register_module()
class SignalHook(Hook):
    """Signals the process during an update, as Slurm does before a time limit."""

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 2:
            signal.raise_signal(signal.SIGUSR2)


class TestCourse(Course):
    @pytest.mark.long  # detection's is run every time
    def test_two_processes_have_the_losses_of_one(self, task: Task, tmp_path: Path) -> None:
        super().test_two_processes_have_the_losses_of_one(task, tmp_path)

    @pytest.mark.parametrize("name", [ANY[1], ANY[3]])  # of other strides, and of four maps; detection takes all
    def test_any_backbone(self, task: Task, name: str, tmp_path: Path) -> None:
        super().test_any_backbone(task, name, tmp_path)

    def test_a_signal_leaves_a_checkpoint(self, task: Task, finished: Path, tmp_path: Path) -> None:
        """Up to a thousand updates were lost, and a job shorter than that never got on."""
        given = task.options(tmp_path, checkpoint_interval=1000)
        with pytest.raises(Interrupted, match="stopped by SIGUSR2"):
            task.evaluate(given, {"type": "SignalHook"})
        with pytest.raises(ValueError, match=r"unfinished run with other inputs \(seed 0 -> 1\)"):
            task.evaluate(replace(given, seed=1))
        assert [path.name for path in (tmp_path / "training").glob("*.pth")] == ["iter_3.pth"]
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
        result = task.evaluate(given)
        assert_same_weights(tmp_path, finished)
        assert result.metrics == read_result(finished / "result.json").metrics

    def test_every_labelled_pixel_is_counted_once(self, finished: Path) -> None:
        result = read_result(finished / "result.json")
        assert list(result.metrics) == ["mIoU", "aAcc", "mAcc"]
        assert [set(values) for values in result.breakdown.values()] == [{"IoU", "Acc"}] * 150
        drawn = {path for name, path in result.artefacts.items() if name.startswith("prediction on")}
        assert drawn == {f"predictions/00{number}.png" for number in range(3)}
        assert not math.isnan(result.breakdown["wall"]["IoU"])
        assert math.isnan(result.breakdown["sky"]["Acc"])  # labelled nowhere
        assert [result.datasets[role].num_items for role in ("train", "test")] == [4, 3]
        counts = json.loads((finished / "class_pixels.json").read_text(encoding="utf-8"))
        _, predicted, labelled = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
        assert predicted == labelled == 3 * 50 * (70 - 4)
        assert {name for name, (_, _, labelled) in counts.items() if labelled} == {"wall", "door"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"), [("DINOv3 ViT-S/16", "fpn"), ("Swin-T", "fpn"), ("ResNet-50", "fpn"), ("ViT-S/8", "upernet")]
)
def test_one_update_and_one_test_image(task: Task, name: str, head: str, tmp_path: Path) -> None:
    weights = weights_of_one_update(task, toy(ROWS[name]), tmp_path, override=THIN_HEADS[head], head=head)
    assert ("auxiliary_head.conv_seg.weight" in weights) == (head == "upernet")


def test_a_diverged_training_gives_no_metrics(task: Task, tmp_path: Path) -> None:
    """NaN went to the end and was tested."""
    given = task.options(tmp_path / "out")
    given = replace(given, override=[*given.override, "optim_wrapper.optimizer.lr=1e30"])
    with pytest.raises(ValueError, match=r"update \d: the loss is (nan|inf); the training has diverged"):
        task.evaluate(given)
    assert not (tmp_path / "out/result.json").exists()


def test_a_warm_up_longer_than_the_run_is_refused(task: Task, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exceeds iterations=3"):
        task.options(tmp_path, iterations=3, warmup_iterations=4)


def test_the_task_says_nothing_while_it_is_imported() -> None:
    """mmseg prints on stdout when it is imported, where a command's own result belongs."""
    command = [sys.executable, "-c", "import eval.segmentation.task, eval.detection.task"]
    imported = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert imported.stdout == ""
