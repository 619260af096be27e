"""One command for all tasks: what it checks before it starts, what it passes on, what it repeats."""

import json
from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from tests.conftest import RunMain
from tools.eval_all import main
from tools.evaluation.backbone import run_name
from tools.evaluation.options import EvalAllOptions, split_task_options
from tools.evaluation.tasks import TASKS
from tools.sample_data.draw import SampleConfig, draw_samples

SPEC = ViTSpec(embed_dim=64, depth=4, num_heads=1, patch_size=16, image_size=64, class_token=False, final_norm=False)
# Small and short enough for a test: sizes and schedules only, no other code path.
SHORT = {
    "davis": ["--davis.jobs", "1"],
    "detection": [
        "--detection.iterations=2",
        "--detection.batch-size=2",
        "--detection.short-side=128",
        "--detection.workers=0",
    ],
    "segmentation": [
        "--segmentation.iterations=2",
        "--segmentation.batch-size=2",
        "--segmentation.crop=64",
        "--segmentation.train-short-side=64",
        "--segmentation.test-short-side=64",
        "--segmentation.workers=0",
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_samples(SampleConfig(output=folder, train_images=4, val_images=2, frames=3))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "toy.pth"
    torch.save(build_backbone(SPEC).state_dict(), path)
    return path


def test_options_of_tasks_are_separated() -> None:
    arguments = ["--davis.jobs", "2", "--davis.overlays", "--name", "x", "--detection.batch-size=4", "a.pth"]
    own, of_tasks = split_task_options(arguments)
    assert own == ["--name", "x", "a.pth"]
    assert of_tasks == {"davis": ["--jobs", "2", "--overlays"], "detection": ["--batch-size=4"], "segmentation": []}


def test_names_of_runs(tmp_path: Path) -> None:
    assert run_name(tmp_path / "dino_small.pth") == "dino_small"
    assert run_name(tmp_path / "my_run" / "checkpoint.pth") == "my_run"


def test_tasks_are_chosen_by_name() -> None:
    assert EvalAllOptions().chosen_tasks() == list(TASKS)
    with pytest.raises(ValueError, match="unknown depth; tasks: davis"):
        EvalAllOptions(tasks="davis,depth").chosen_tasks()


@pytest.mark.slow
def test_every_task_then_tables_and_nothing_twice(data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    arguments = [checkpoint, "--data", data, "--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    arguments += [option for options in SHORT.values() for option in options]
    finished = run_main(main, arguments)
    assert finished.status == 0, finished.stderr
    results = {task: tmp_path / "runs" / "toy" / task / "result.json" for task in TASKS}
    for task, path in results.items():
        content = json.loads(path.read_text())
        assert content["task"] == task
        assert {dataset["coverage"] for dataset in content["datasets"].values()} == {"sample"}
        assert f"{task}: " in finished.stdout
    assert "not a benchmark number" in finished.stdout
    main_csv = (tmp_path / "results" / "main.csv").read_text()
    assert "toy" in main_csv
    stamps = {task: path.stat().st_mtime_ns for task, path in results.items()}
    again = run_main(main, arguments)
    assert again.status == 0, again.stderr
    assert {task: path.stat().st_mtime_ns for task, path in results.items()} == stamps
    assert (tmp_path / "results" / "main.csv").read_text() == main_csv


def test_mistakes_are_found_before_any_task_starts(data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    common = ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    half = tmp_path / "half"
    half.mkdir()
    (half / "DAVIS").symlink_to(data / "DAVIS")
    bomb = tmp_path / "other.pth"
    torch.save({"generator": {"weight": torch.ones(1)}}, bomb)
    for arguments, message in (
        ([checkpoint, "--data", tmp_path / "absent"], "absent"),
        ([checkpoint, "--data", half], "half/coco"),
        ([checkpoint, "--data", data, "--detection.iteration", "3"], "iteration"),
        ([checkpoint, "--data", data, "--tasks", "davis", "--detection.iterations", "3"], "leaves out"),
        ([checkpoint, "--data", data, "--tasks", "depth"], "depth"),
        ([bomb, "--data", data, "--tasks", "davis"], "no known layout"),
        ([checkpoint, "--data", data, "--tasks", "davis", "--runs", "/proc/nowhere"], "/proc/nowhere"),
        ([checkpoint, "--data", data, "--detection.taps", "[0,1,2,4]"], "--detection: taps"),
        ([tmp_path / "absent.pth", "--data", tmp_path / "absent"], "no such checkpoint file"),
    ):
        finished = run_main(main, [*arguments[:1], *common, *arguments[1:]])
        assert finished.status == 2, finished
        assert len(finished.stderr.splitlines()) == 1, finished.stderr
        assert message in finished.stderr
        assert not list((tmp_path / "runs").glob("*/*/result.json"))


def test_a_failed_task_never_shows_older_figures(data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    """A result of other inputs in the run's folder was once printed as this command's."""
    arguments = [checkpoint, "--data", data, "--runs", tmp_path / "runs", "--results", tmp_path / "results", "--tasks", "davis"]
    assert run_main(main, [*arguments, "--davis.jobs", "1"]).status == 0
    other = run_main(main, [*arguments, "--davis.jobs", "1", "--davis.topk", "3"])
    assert other.status == 1
    assert "davis: failed" in other.stdout
    assert "J&F-Mean" not in other.stdout
