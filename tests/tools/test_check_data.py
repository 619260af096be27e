"""The data doctor's command: it names what is damaged, finds what is in another place, and gives commands that repair it."""

import json
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

from eval.result import SAMPLE_MARKER
from tests.conftest import REPOSITORY, RunMain
from tools.check_data import main

CLASS = "n01440764"
ADE = "ade/ADEChallengeData2016"
ADE_IMAGE, ADE_LABELS = f"{ADE}/images/validation/ADE_val_00000002.jpg", f"{ADE}/annotations/validation/ADE_val_00000002.png"
COCO_IMAGE = "coco/val2017/000000000005.jpg"
FRAME, MASK = "DAVIS/JPEGImages/480p/coffee-garage/00002.jpg", "DAVIS/Annotations/480p/coffee-garage/00002.png"


@pytest.fixture
def data(small_samples: Path, tmp_path: Path) -> Path:
    """Four tiny sets that do not say that they are samples, to be damaged."""
    folder = shutil.copytree(small_samples, tmp_path / "data", ignore=shutil.ignore_patterns(SAMPLE_MARKER, "photos"))
    for split in ("train", "val"):
        (folder / "imagenet" / split / "cat").rename(folder / "imagenet" / split / CLASS)
    return folder


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


def test_healthy_subsets_pass(data: Path, run_main: RunMain) -> None:
    report = run_main(main, ["--data", data, "--jobs", 1]).output()
    assert report.count("a subset, usable") == 4
    assert "2 of 5,000 images" in report


@pytest.mark.parametrize(
    ("task", "file", "damage", "kind"),
    [
        ("detection", COCO_IMAGE, None, "missing"),
        ("detection", COCO_IMAGE, b"version https://git-lfs.github.com/spec/v1\n", "damaged"),
        ("detection", COCO_IMAGE, ".JPG", "misnamed"),
        ("segmentation", ADE_IMAGE, b"", "damaged"),
        ("detection", "coco/annotations/instances_val2017.json", b"[]", "damaged"),
        ("davis", MASK, None, "missing"),
        ("davis", FRAME, b"\xff\xd8", "damaged"),
        ("classification", f"imagenet/train/{CLASS}/0001.jpg", b"<html>404", "damaged"),
        ("classification", f"imagenet/val/{CLASS}", None, "missing"),
    ],
)
def test_a_damaged_file_is_named(
    data: Path, examine: Examine, task: str, file: str, damage: bytes | str | None, kind: str
) -> None:
    """A file gets another content or another suffix, or it is removed."""
    path = data / file
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.rename(path.with_suffix(damage) if damage else data / "removed")
    found = problems(examine(task))
    # A misnamed file may count as missing too.
    assert {one for one, _ in found} - ({"missing"} if kind == "misnamed" else set()) == {kind}, found
    assert any(path.stem in text for _, text in found)


def test_labels_are_always_decoded_and_images_by_deep(data: Path, examine: Examine) -> None:
    labels = np.array(Image.open(data / ADE_LABELS))
    labels[0, 0] = 151
    Image.fromarray(labels).save(data / ADE_LABELS)
    assert [kind for kind, _ in problems(examine("segmentation"))] == ["wrong"]
    frame = data / "DAVIS/JPEGImages/480p/cat-launchpad/00001.jpg"
    content = bytearray(frame.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    frame.write_bytes(content)
    assert problems(examine("davis")) == []
    ((kind, text),) = problems(examine("davis", "--deep"))
    assert (kind, frame.name in text) == ("damaged", True)


def test_hidden_and_foreign_files_are_only_noted(data: Path, examine: Examine) -> None:
    foreign = {"val2017/._000000000005.jpg", "val2017/000000000006.jpg.part", "val2017/index.txt"}
    for name in foreign:
        (data / "coco" / name).touch()
    report = examine("detection")
    assert report["usable"]
    assert {name for one in report["findings"] if one["kind"] == "note" for name in one["names"]} == foreign


@pytest.mark.parametrize(
    ("task", "folder", "place"),
    [
        ("davis", "DAVIS", "videos/DAVIS"),
        ("detection", "coco", "else where/coco"),
        ("segmentation", ADE, "ADEChallengeData2016"),
        ("classification", "imagenet", "imagenet/ILSVRC/Data/CLS-LOC"),  # as Kaggle ships it
        # A folder in its namesake, as some archives are unpacked.
        ("detection", "coco/train2017", "coco/train2017/train2017"),
    ],
)
def test_a_folder_in_another_place_is_found_and_the_advice_moves_it(
    data: Path, examine: Examine, task: str, folder: str, place: str
) -> None:
    (data / folder).rename(data / "moved")
    (data / place).parent.mkdir(parents=True, exist_ok=True)
    (data / "moved").rename(data / place)
    (finding,) = [one for one in examine(task)["findings"] if one["kind"] == "misplaced"]
    assert str(data / place).endswith(*finding["names"])
    subprocess.run(finding["advice"], shell=True, check=True)
    assert problems(examine(task)) == []


def test_the_advice_renames_all_misnamed_files(data: Path, examine: Examine) -> None:
    for path in list((data / "DAVIS/JPEGImages").rglob("*.jpg")):
        path.rename(path.with_suffix(".JPEG"))
    for command in {one["advice"] for one in examine("davis")["findings"] if one["kind"] == "misnamed"}:
        subprocess.run(command, shell=True, check=True)
    assert problems(examine("davis")) == []


def test_the_advice_overwrites_nothing(data: Path, examine: Examine) -> None:
    inner = shutil.copytree(data / "DAVIS", data / "DAVIS/DAVIS")
    (inner / "ImageSets/2017/val.txt").write_text("other")
    for name in ("JPEGImages", "Annotations"):
        shutil.rmtree(data / "DAVIS" / name)
    (finding,) = [one for one in examine("davis")["findings"] if one["problem"]]
    assert subprocess.run(finding["advice"], shell=True, check=False, capture_output=True).returncode != 0
    assert (data / "DAVIS/ImageSets/2017/val.txt").read_text() != "other"


def test_an_archive_that_is_not_unpacked_or_cut_off(data: Path, examine: Examine) -> None:
    shutil.rmtree(data / "coco/val2017")
    path = data / "coco/val2017.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val2017/x.jpg", b"x")
    advice = [one["advice"] for one in examine("detection")["findings"] if one["text"] == "archives are not unpacked"]
    assert advice == [f"unzip -q {path} -d {data}/coco"]
    path.write_bytes(b"PK\x03\x04 and no more")
    assert [one["names"] for one in examine("detection")["findings"] if one["kind"] == "damaged"] == [[str(path)]]


@pytest.mark.data
def test_real_data_pass(real_data_dir: Path, run_main: RunMain) -> None:
    tasks = ["--tasks", "davis,detection,segmentation"]
    report = run_main(main, ["--data", real_data_dir, *tasks, "--jobs", 1, "--deep"]).output()
    assert not [word for word in ("missing", "misplaced", "misnamed", "damaged", "wrong") if word in report]


def test_the_report_names_problems_and_needs_only_the_sets_that_are_asked_for(data: Path, run_main: RunMain) -> None:
    wrong = run_main(main, ["--data", data / "coco"])
    assert (wrong.status, f"--data {data}" in wrong.stdout) == (1, True)
    for path in (data / "coco/train2017").iterdir():
        path.write_bytes(b"")
    damaged = run_main(main, ["--data", data, "--names", 2])
    assert (damaged.status, ": 1 problem" in damaged.stdout) == (1, True)
    assert "files are empty (0 bytes) (4): train2017/000000000001.jpg, train2017/000000000002.jpg, ..." in damaged.stdout
    assert "there, not examined" in run_main(main, ["--data", data, "--tasks", "davis"]).output()
    shutil.rmtree(data / "coco")
    report = run_main(main, ["--data", data]).output()
    assert f"COCO 2017 (detection), {data}/coco: absent" in report
    assert "http://images.cocodataset.org/zips/train2017.zip" in report
    assert run_main(main, ["--data", data, "--tasks", "davis,detection"]).status == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--tasks", "coco", "--tasks: unknown coco; tasks: davis, detection, segmentation, classification"),
        ("--jobs", "-1", "--jobs -1 is negative"),
        ("--data", "no/such/folder", "--data no/such/folder: no such folder"),
    ],
)
def test_wrong_usage_is_one_line(small_samples: Path, run_main: RunMain, option: str, value: str, message: str) -> None:
    assert message in run_main(main, ["--data", small_samples, option, value]).mistake()


def test_sample_data_pass_in_several_processes_and_from_anywhere(small_samples: Path, tmp_path: Path) -> None:
    command = [sys.executable, REPOSITORY / "tools/check_data.py", "--data", small_samples, "--jobs", "2", "--deep"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("generated sample data, usable") == 4
    assert "note" not in finished.stdout
