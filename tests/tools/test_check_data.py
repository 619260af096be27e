"""The data doctor, through its command: it names what the evaluation refuses, says where things are, and its commands repair them."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from common.cli import parse
from eval.result import SAMPLE_MARKER
from eval.tasks import TASKS, load
from tests.conftest import REPOSITORY, RunMain
from tools.check_data import main
from tools.make_sample_data import SampleConfig, draw_samples

SPEC = ViTSpec(embed_dim=64, depth=4, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)
CLASS = "n01440764"
ADE = "ade/ADEChallengeData2016"
ADE_IMAGE, ADE_LABELS = f"{ADE}/images/validation/ADE_val_00000002.jpg", f"{ADE}/annotations/validation/ADE_val_00000002.png"
COCO_IMAGE, COCO_FILE = "coco/val2017/000000000005.jpg", "coco/annotations/instances_val2017.json"
FRAME, MASK = "DAVIS/JPEGImages/480p/coffee-garage/00002.jpg", "DAVIS/Annotations/480p/coffee-garage/00002.png"
CLASS_IMAGE, CLASS_FOLDER = f"imagenet/train/{CLASS}/0001.jpg", f"imagenet/val/{CLASS}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiny sets that do not say that they are samples."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_samples(SampleConfig(output=folder, train_images=3, val_images=2, frames=4, photos=1, class_images=2))
    for marker in folder.rglob(SAMPLE_MARKER):
        marker.unlink()
    for split in ("train", "val"):
        (folder / "imagenet" / split / "cat").rename(folder / "imagenet" / split / CLASS)
    shutil.rmtree(folder / "photos")
    return folder


@pytest.fixture
def data(drawn: Path, tmp_path: Path) -> Path:
    """The tiny sets, to be damaged."""
    return shutil.copytree(drawn, tmp_path / "data")


Examine = Callable[..., dict[str, Any]]


@pytest.fixture
def examine(data: Path, tmp_path: Path, run_main: RunMain) -> Examine:
    """The JSON report about one task's data set; the exit status must agree with it."""

    def examine_task(task: str, *options: str) -> dict[str, Any]:
        path = tmp_path / "report" / "doctor.json"
        finished = run_main(main, ["--data", data, "--tasks", task, "--jobs", 1, "--json", path, *options])
        report = next(one for one in json.loads(path.read_text())["datasets"] if one["task"] == task)
        assert finished.status == (0 if report["usable"] else 1), finished
        return report

    return examine_task


def problems(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Kind and text with names of every problem."""
    return [(one["kind"], f"{one['text']}: {' '.join(one['names'])}") for one in report["findings"] if one["problem"]]


def is_refused(task: str, data: Path) -> bool:
    """Whether `python -m eval TASK` refuses the data before it starts."""
    folder = data / TASKS[task].folder
    given = ["--backbone", "x.safetensors", "--data", str(folder), "--output", str(data.parent / "output")]
    given += ["--neighbours", "4"] if task == "classification" else []  # no more than the tiny set has images
    try:
        load(f"{TASKS[task].module}:check")(parse(load(TASKS[task].config), given, "test"), SPEC)
    except ValueError:
        return True
    return False


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def replace_by(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def rename_to(suffix: str) -> Callable[[Path], object]:
    return lambda path: path.rename(path.with_suffix(suffix))


def shrink(path: Path) -> None:
    Image.open(path).resize((64, 48)).save(path)


def in_colour(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def change_label(path: Path) -> None:
    labels = np.array(Image.open(path))
    labels[0, 0] = 151
    Image.fromarray(labels).save(path)


def zero_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)


def spoil_annotation(change: dict[str, Any]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = json.loads(path.read_text())
        content["annotations"][0].update(change)
        path.write_text(json.dumps(content))

    return spoil


@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_healthy_subsets_pass(data: Path, run_main: RunMain, options: list[str]) -> None:
    finished = run_main(main, ["--data", data, "--jobs", 1, *options])
    assert finished.status == 0, finished.stdout
    assert finished.stdout.count("a subset, usable") == 4
    assert "usable: DAVIS-2017, COCO 2017, ADE20K, ImageNet-1k" in finished.stdout
    assert "2 of 5,000 images" in finished.stdout
    assert "\033" not in finished.stdout


@pytest.mark.parametrize("task", TASKS)
def test_the_evaluation_accepts_healthy_subsets(data: Path, examine: Examine, task: str) -> None:
    assert problems(examine(task)) == []
    assert not is_refused(task, data)


@pytest.mark.parametrize(
    ("task", "file", "damage", "kind"),
    [
        ("detection", COCO_IMAGE, Path.unlink, "missing"),
        ("detection", COCO_IMAGE, cut, "damaged"),
        ("detection", COCO_IMAGE, replace_by(b""), "damaged"),
        ("detection", COCO_IMAGE, replace_by(b"version https://git-lfs.github.com/spec/v1\n"), "damaged"),
        ("detection", COCO_IMAGE, replace_by(b"<html>404"), "damaged"),
        ("detection", COCO_IMAGE, rename_to(".JPG"), "misnamed"),
        ("detection", COCO_IMAGE, shrink, "wrong"),
        ("detection", COCO_FILE, Path.unlink, "missing"),
        ("detection", COCO_FILE, replace_by(b'{"images": ['), "damaged"),
        ("detection", COCO_FILE, replace_by(b"[]"), "damaged"),
        ("detection", COCO_FILE, spoil_annotation({"category_id": 12}), "wrong"),
        ("detection", COCO_FILE, spoil_annotation({"bbox": [900.0, 5.0, 20.0, 10.0]}), "wrong"),
        ("segmentation", ADE_IMAGE, Path.unlink, "missing"),
        ("segmentation", ADE_LABELS, Path.unlink, "missing"),
        ("segmentation", ADE_IMAGE, cut, "damaged"),
        ("segmentation", ADE_LABELS, cut, "damaged"),
        ("segmentation", ADE_LABELS, in_colour, "damaged"),
        ("segmentation", ADE_LABELS, rename_to(".PNG"), "misnamed"),
        ("segmentation", ADE_IMAGE, shrink, "wrong"),
        ("segmentation", ADE_LABELS, change_label, "wrong"),
        ("davis", FRAME, Path.unlink, "missing"),
        ("davis", MASK, Path.unlink, "missing"),
        ("davis", FRAME, cut, "damaged"),
        ("davis", MASK, cut, "damaged"),
        ("davis", MASK, in_colour, "damaged"),
        ("davis", FRAME, rename_to(".JPEG"), "misnamed"),
        ("davis", FRAME, shrink, "wrong"),
        ("classification", CLASS_IMAGE, cut, "damaged"),
        ("classification", CLASS_FOLDER, shutil.rmtree, "missing"),
    ],
)
def test_a_damaged_file_is_named_and_the_evaluation_refuses_it(
    data: Path, examine: Examine, task: str, file: str, damage: Callable[[Path], object], kind: str
) -> None:
    damage(data / file)
    found = problems(examine(task))
    # A misnamed file may count as missing too.
    assert {one for one, _ in found} - ({"missing"} if kind == "misnamed" else set()) == {kind}, found
    assert any(Path(file).stem in text for _, text in found)
    # Classification lists a million images and refuses a damaged one when it reads it.
    assert is_refused(task, data) or (task, kind) == ("classification", "damaged")


@pytest.mark.parametrize(
    ("task", "file"),
    [("detection", COCO_IMAGE), ("segmentation", ADE_IMAGE), ("davis", "DAVIS/JPEGImages/480p/cat-launchpad/00001.jpg")],
)
def test_only_deep_finds_an_image_damaged_in_its_middle(data: Path, examine: Examine, task: str, file: str) -> None:
    zero_the_middle(data / file)
    assert problems(examine(task)) == []
    ((kind, text),) = problems(examine(task, "--deep"))
    assert kind == "damaged"
    assert Path(file).name in text


def test_hidden_and_foreign_files_are_only_noted(data: Path, examine: Examine) -> None:
    (data / "coco/val2017/._000000000005.jpg").touch()
    (data / "coco/val2017/000000000006.jpg.part").touch()
    (data / "coco/val2017/thumbnails").mkdir()
    (data / "coco/val2017/index.txt").touch()
    with zipfile.ZipFile(data / "coco/train2017.zip", "w") as archive:
        archive.writestr("train2017/x.jpg", b"x")
    report = examine("detection")
    assert report["usable"]
    assert {name for one in report["findings"] if one["kind"] == "note" for name in one["names"]} == {
        "val2017/._000000000005.jpg",
        "val2017/000000000006.jpg.part",
        "val2017/thumbnails",
        "val2017/index.txt",
        f"{data}/coco/train2017.zip",
    }
    assert not is_refused("detection", data)


@pytest.mark.parametrize(
    ("task", "folder", "place"),
    [
        ("davis", "DAVIS", "DAVIS/DAVIS"),
        ("davis", "DAVIS", "videos/DAVIS"),
        ("detection", "coco", "COCO2017"),
        ("detection", "coco", "else where/coco"),
        ("segmentation", ADE, "ADEChallengeData2016"),
        ("classification", "imagenet", "ILSVRC2012"),
        ("classification", "imagenet", "imagenet/ILSVRC/Data/CLS-LOC"),  # as Kaggle ships it
    ],
)
def test_a_set_in_another_folder_is_found_and_the_advice_moves_it(
    data: Path, examine: Examine, task: str, folder: str, place: str
) -> None:
    (data / folder).rename(data / "moved")
    (data / place).parent.mkdir(parents=True, exist_ok=True)
    (data / "moved").rename(data / place)
    report = examine(task)
    (finding,) = [one for one in report["findings"] if one["problem"]]
    assert (finding["kind"], finding["names"]) == ("misplaced", [str(data / place)])
    subprocess.run(finding["advice"], shell=True, check=True)
    assert problems(examine(task)) == []


@pytest.mark.parametrize(
    ("task", "folder"),
    [
        ("detection", "coco/train2017"),
        ("davis", "DAVIS/JPEGImages/480p"),
        ("segmentation", f"{ADE}/images/training"),
        ("classification", "imagenet/train"),
    ],
)
def test_a_folder_in_its_namesake_is_found_and_the_advice_moves_its_content(
    data: Path, examine: Examine, task: str, folder: str
) -> None:
    place = data / folder
    place.rename(data / "moved")
    place.mkdir()
    (data / "moved").rename(place / place.name)
    (finding,) = [one for one in examine(task)["findings"] if one["kind"] == "misplaced"]
    assert is_refused(task, data)
    subprocess.run(finding["advice"], shell=True, check=True)
    assert problems(examine(task)) == []


def test_the_advice_renames_all_misnamed_files(data: Path, examine: Examine) -> None:
    for path in list((data / "DAVIS/JPEGImages").rglob("*.jpg")):
        path.rename(path.with_suffix(".JPEG"))
    commands = {one["advice"] for one in examine("davis")["findings"] if one["kind"] == "misnamed"}
    assert commands
    for command in commands:
        subprocess.run(command, shell=True, check=True)
    assert problems(examine("davis")) == []


def test_advice_overwrites_nothing(data: Path, examine: Examine) -> None:
    shutil.copytree(data / "DAVIS", data / "inner")
    (data / "inner/ImageSets/2017/val.txt").write_text("other")
    for name in ("JPEGImages", "Annotations"):
        shutil.rmtree(data / "DAVIS" / name)
    (data / "inner").rename(data / "DAVIS/DAVIS")
    (finding,) = [one for one in examine("davis")["findings"] if one["problem"]]
    assert subprocess.run(finding["advice"], shell=True, check=False, capture_output=True).returncode
    assert (data / "DAVIS/ImageSets/2017/val.txt").read_text() != "other"


def test_an_archive_that_is_not_unpacked(data: Path, examine: Examine) -> None:
    shutil.rmtree(data / "coco/val2017")
    path = data / "coco/val2017.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val2017/x.jpg", b"x")
    findings = examine("detection")["findings"]
    assert [one["advice"] for one in findings if one["text"] == "archives are not unpacked"] == [
        f"unzip -q {path} -d {data}/coco"
    ]
    path.write_bytes(b"PK\x03\x04 and no more")
    assert [one["names"] for one in examine("detection")["findings"] if one["kind"] == "damaged"] == [[str(path)]]
    shutil.rmtree(data / ADE)
    (data / "ADEChallengeData2016.zip").write_bytes(b"")
    assert [one["names"] for one in examine("segmentation")["findings"]] == [[f"{data}/ADEChallengeData2016.zip"]]


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
    assert run_main(main, ["--data", data, "--tasks", "davis,detection"]).status == 1


def test_sets_that_were_not_asked_for_are_not_examined(data: Path, run_main: RunMain) -> None:
    shutil.rmtree(data / "coco")
    (data / ADE_IMAGE).write_bytes(b"")
    finished = run_main(main, ["--data", data, "--tasks", "davis"])
    assert finished.status == 0
    assert "there, not examined" in finished.stdout
    assert "absent; it comes from http://images.cocodataset.org" in finished.stdout


def test_an_empty_folder_is_not_healthy_and_that_of_one_data_set_is_not_that_of_all(data: Path, run_main: RunMain) -> None:
    finished = run_main(main, ["--data", data / "coco", "--tasks", "detection"])
    assert finished.status == 1
    assert f"--data {data}" in finished.stdout
    finished = run_main(main, ["--data", data / "coco/annotations"])
    assert finished.status == 1
    assert "usable: none" in finished.stdout


def test_a_problem_is_shown_with_names_and_a_count(data: Path, run_main: RunMain) -> None:
    for path in (data / "coco/train2017").iterdir():
        path.write_bytes(b"")
    finished = run_main(main, ["--data", data, "--names", 2])
    assert finished.status == 1
    assert ": 1 problem" in finished.stdout
    assert "files are empty (0 bytes) (3): train2017/000000000001.jpg, train2017/000000000002.jpg, ..." in finished.stdout


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
