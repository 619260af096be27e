"""Frozen tasks on an emulated GPU: nothing stays on the CPU, and propagation does not wait for the GPU."""

from pathlib import Path

import pytest

import eval.__main__
from eval.result import read_result
from eval.tasks import TASKS
from tests.commands import draw_inputs, task_arguments
from tests.emulated_gpu import emulated_gpu, waits


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if not task.fine_tunes])
def test_a_task_on_a_gpu(task: str, data: Path, tmp_path: Path) -> None:
    arguments = task_arguments(task, data / "toy.safetensors", data, tmp_path)
    with emulated_gpu():
        eval.__main__.main(["cuda" if word == "cpu" else word for word in arguments])
    assert read_result(tmp_path / "result.json").environment.device == "it"
    # For the labels of the first frame of each of the two videos, and for nothing that follows.
    expected = 2 if task in ("davis", "vip", "jhmdb") else 0
    while_frames_follow = [place for place in waits if "propagator.py" in place or "joint_places" in place]
    assert while_frames_follow == ["eval/propagation/propagator.py:propagate_sequence"] * expected
