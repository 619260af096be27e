"""The whole, through the command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, RunMain
from tools.check_data import main
from tools.data_doctor import ade, coco, davis, imagenet
from tools.evaluation.tasks import TASKS
from tools.make_sample_data import SampleConfig, draw_samples


def test_folders_are_those_where_the_tasks_look() -> None:
    modules = {"davis": davis, "detection": coco, "segmentation": ade, "classification": imagenet}
    assert {task: module.FOLDER for task, module in modules.items()} == {task: TASKS[task].folder for task in TASKS}


@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_healthy_subsets_pass(data: Path, run_main: RunMain, options: list[str]) -> None:
    finished = run_main(main, ["--data", data, "--jobs", 1, *options])
    assert finished.status == 0
    assert finished.stdout.count("a subset, usable") == 4
    assert "usable: DAVIS-2017, COCO 2017, ADE20K, ImageNet-1k" in finished.stdout
    assert "\033" not in finished.stdout


@pytest.mark.data
@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_real_data_pass(real_data_dir: Path, run_main: RunMain, options: list[str]) -> None:
    finished = run_main(main, ["--data", real_data_dir, "--tasks", "davis,detection,segmentation", "--jobs", 1, *options])
    assert finished.status == 0, finished.stdout
    for word in ("missing", "misplaced", "misnamed", "damaged", "wrong"):
        assert word not in finished.stdout


def test_sample_data_pass(tmp_path: Path, run_main: RunMain) -> None:
    draw_samples(SampleConfig(output=tmp_path, train_images=2, val_images=1, frames=3, photos=1))
    finished = run_main(main, ["--data", tmp_path, "--deep", "--jobs", 1])
    assert finished.status == 0, finished.stdout
    assert finished.stdout.count("generated sample data, usable") == 4
    assert "note" not in finished.stdout


def test_an_absent_set_is_a_problem_only_if_it_is_asked_for(data: Path, run_main: RunMain) -> None:
    shutil.rmtree(data / "coco")
    finished = run_main(main, ["--data", data])
    assert finished.status == 0
    assert f"COCO 2017 (detection), {data}/coco: absent" in finished.stdout
    assert "http://images.cocodataset.org/zips/train2017.zip" in finished.stdout
    assert run_main(main, ["--data", data, "--tasks", "davis"]).status == 0
    assert run_main(main, ["--data", data, "--tasks", "davis,detection"]).status == 1


def test_sets_that_were_not_asked_for_are_not_examined(data: Path, run_main: RunMain) -> None:
    shutil.rmtree(data / "coco")
    (data / "ade/ADEChallengeData2016/images/training/ADE_train_00000001.jpg").write_bytes(b"")
    finished = run_main(main, ["--data", data, "--tasks", "davis"])
    assert finished.status == 0
    assert "ADE20K (segmentation), " in finished.stdout
    assert "there, not examined" in finished.stdout
    assert "absent; it comes from http://images.cocodataset.org" in finished.stdout


def test_nothing_at_all_is_not_healthy(tmp_path: Path, run_main: RunMain) -> None:
    finished = run_main(main, ["--data", tmp_path])
    assert finished.status == 1
    assert "usable: none" in finished.stdout


def test_the_folder_of_one_dataset_is_not_the_folder_of_all(data: Path, run_main: RunMain) -> None:
    finished = run_main(main, ["--data", data / "coco", "--tasks", "detection"])
    assert finished.status == 1
    assert f"--data {data}" in finished.stdout


def test_a_problem_is_shown_with_names_and_a_count(data: Path, run_main: RunMain, tmp_path: Path) -> None:
    for path in (data / "coco/train2017").iterdir():
        path.write_bytes(b"")
    written = tmp_path / "report/doctor.json"
    finished = run_main(main, ["--data", data, "--names", 2, "--json", written])
    assert finished.status == 1
    assert "COCO 2017 (detection), " in finished.stdout
    assert ": 1 problem" in finished.stdout
    assert "files are empty (0 bytes) (3): train2017/000000000001.jpg, train2017/000000000002.jpg, ..." in finished.stdout
    assert "http://images.cocodataset.org/zips/train2017.zip" in finished.stdout
    report = json.loads(written.read_text())
    assert report["healthy"] is False
    detection = next(dataset for dataset in report["datasets"] if dataset["task"] == "detection")
    assert (detection["state"], detection["usable"]) == ("problems", False)
    (finding,) = detection["findings"]
    assert (finding["kind"], finding["problem"], finding["count"]) == ("damaged", True, 3)
    assert finding["names"] == [f"train2017/{number:012d}.jpg" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "coco"], "--tasks: unknown coco; tasks: davis, detection, segmentation, classification"),
        (["--tasks", ","], "--tasks names no task"),
        (["--jobs", "-1"], "--jobs -1 is negative"),
        (["--data", "no/such/folder"], "--data no/such/folder: no such folder"),
        (["--depth", "3"], "depth"),
    ],
)
def test_wrong_usage_is_one_line(data: Path, run_main: RunMain, options: list[str], message: str) -> None:
    finished = run_main(main, [*(() if "--data" in options else ("--data", data)), *options])
    assert finished.status == 2
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_it_runs_from_anywhere(data: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(REPOSITORY / "tools/check_data.py"), "--data", str(data), "--jobs", "2"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "usable: DAVIS-2017, COCO 2017, ADE20K, ImageNet-1k" in finished.stdout
