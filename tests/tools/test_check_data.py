"""The data doctor's command: it names what is damaged, finds what is in another place, and gives commands that repair it."""

import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.result import SAMPLE_MARKER
from tests.conftest import RunMain
from tools.check_data import main

CLASS = "n01440764"
ADE = "ade/ADEChallengeData2016"
COCO_IMAGE = "coco/val2017/000000000005.jpg"
MASK = "DAVIS/Annotations/480p/coffee-garage/00002.png"


@pytest.fixture
def data(small_samples: Path, tmp_path: Path) -> Path:
    """Tiny sets that do not say that they are samples, to be damaged."""
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


def test_subsets_and_sample_data_pass(data: Path, small_samples: Path, run_main: RunMain) -> None:
    report = run_main(main, ["--data", data, "--jobs", 2, "--deep"]).output()
    assert report.count("a subset, usable") == 14
    assert "2 of 5,000 images" in report
    assert run_main(main, ["--data", small_samples]).output().count("generated sample data, usable") == 14
    boxes = run_main(main, ["--data", small_samples, "--tasks", "object_discovery"]).output()
    assert boxes.count("generated sample data, usable") == 3  # VOC 2007 and 2012, COCO 20k


@pytest.mark.parametrize(
    ("task", "file", "damage", "kind"),
    [
        ("detection", COCO_IMAGE, None, "missing"),
        ("segmentation", f"{ADE}/images/validation/ADE_val_00000002.jpg", b"", "damaged"),
        ("davis", MASK, None, "missing"),
        ("classification", f"imagenet/val/{CLASS}", None, "missing"),
    ],
)
def test_a_damaged_file_is_named(data: Path, examine: Examine, task: str, file: str, damage: bytes | None, kind: str) -> None:
    """A file gets another content, or it is removed."""
    path = data / file
    if damage is None:
        path.rename(data / "removed")
    else:
        path.write_bytes(damage)
    found = problems(examine(task))
    assert {one for one, _ in found} == {kind}, found
    assert any(path.stem in text for _, text in found)


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


def test_the_advice_overwrites_nothing(data: Path, examine: Examine) -> None:
    (data / "DAVIS/notes.txt").write_text("own")
    shutil.copytree(data / "DAVIS", data / "inner")
    (data / "inner/notes.txt").write_text("other")
    for name in ("JPEGImages", "Annotations"):
        shutil.rmtree(data / "DAVIS" / name)
    (data / "inner").rename(data / "DAVIS/DAVIS")
    (finding,) = [one for one in examine("davis")["findings"] if one["problem"]]
    assert subprocess.run(finding["advice"], shell=True, check=False, capture_output=True).returncode != 0
    assert (data / "DAVIS/notes.txt").read_text() == "own"


def test_an_archive_that_is_not_unpacked_or_cut_off(data: Path, examine: Examine, run_main: RunMain) -> None:
    shutil.rmtree(data / "coco/val2017")
    path = data / "coco/val2017.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val2017/x.jpg", b"x")
    advice = [one["advice"] for one in examine("detection")["findings"] if one["text"] == "archives are not unpacked"]
    assert advice == [f"unzip -q {path} -d {data}/coco"]
    path.write_bytes(b"PK\x03\x04 and no more")
    assert [one["names"] for one in examine("detection")["findings"] if one["kind"] == "damaged"] == [[str(path)]]
    (data / "VOCdevkit").rename(data / "moved")
    path = data / "VOCtrainval_11-May-2012.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(data / "moved", "VOCdevkit")
    shutil.rmtree(data / "moved")
    report = run_main(main, ["--data", data, "--tasks", "retrieval_segmentation", "--jobs", 1])
    assert (report.status, f"-> tar -xf {path} -C {data}\n" in report.stdout) == (1, True)
    subprocess.run(f"tar -xf {path} -C {data}", shell=True, check=True)
    assert run_main(main, ["--data", data, "--tasks", "retrieval_segmentation", "--jobs", 1]).status == 0


def test_a_folder_with_something_else_is_a_problem_beside_which_the_others_are_examined(data: Path, run_main: RunMain) -> None:
    shutil.rmtree(data / "cityscapes")
    (data / "cityscapes/notes").mkdir(parents=True)
    report = run_main(main, ["--data", data, "--jobs", 1])
    assert report.status == 1
    assert "cityscapes holds none of the data sets" in " ".join(report.stdout.split())
    assert "-> get Cityscapes from https://www.cityscapes-dataset.com/downloads" in report.stdout
    assert "usable: DAVIS-2017, COCO 2017, ADE20K" in report.stdout


def test_a_voc_without_augmented_labels_is_usable_but_for_retrieval(data: Path, run_main: RunMain) -> None:
    shutil.rmtree(data / "VOCdevkit/VOC2012/SegmentationClassAug")
    refused = run_main(main, ["--data", data, "--tasks", "retrieval_segmentation", "--jobs", 1])
    assert (refused.status, "VOC2012 has no SegmentationClassAug" in " ".join(refused.stdout.split())) == (1, True)
    assert run_main(main, ["--data", data, "--tasks", "linear_segmentation", "--jobs", 1]).status == 0


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
    shutil.rmtree(data / "coco")
    report = run_main(main, ["--data", data]).output()
    assert f"COCO 2017 (detection), {data}/coco: absent" in report
    assert "http://images.cocodataset.org/zips/train2017.zip" in report
    assert run_main(main, ["--data", data, "--tasks", "davis,detection"]).status == 1


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("VOCdevkit/VOC2012/SegmentationClass/2012_000005.png", "lacks images"),
        ("cityscapes/gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png", "lacks *_gtFine_labelTrainIds.png"),
    ],
)
def test_every_set_of_a_task_is_examined_and_only_its_own_one_must_be_there(
    place: str, text: str, data: Path, run_main: RunMain
) -> None:
    (data / place).unlink()
    finished = run_main(main, ["--data", data, "--tasks", "linear_segmentation", "--jobs", 1])
    assert (finished.status, text in " ".join(finished.stdout.split())) == (1, True), finished.stdout
    shutil.rmtree(data / place.partition("/")[0])
    assert run_main(main, ["--data", data, "--tasks", "linear_segmentation", "--jobs", 1]).status == 0
    # A VOC is no DAVIS in another place, though both have a folder JPEGImages.
    shutil.rmtree(data / "DAVIS")
    assert "DAVIS-2017 is in another folder" not in run_main(main, ["--data", data, "--tasks", "davis"]).stdout


def test_what_frozen_stands_for_may_be_absent_but_not_what_is_named_itself(data: Path, run_main: RunMain) -> None:
    shutil.rmtree(data / "VOCdevkit")
    for tasks, status in (
        ("frozen", 0),
        ("frozen,retrieval_segmentation", 1),
        ("linear_segmentation,retrieval_segmentation", 1),
    ):
        finished = run_main(main, ["--data", data, "--jobs", 1, "--tasks", tasks])
        assert finished.status == status, tasks
        assert "VOCdevkit/VOC2012: absent" in finished.stdout
        assert "coco: there, not examined" in finished.stdout


def test_wrong_usage_is_one_line(small_samples: Path, run_main: RunMain) -> None:
    for options, message in (
        ("--tasks coco", "--tasks: unknown coco; tasks: davis, detection, segmentation, classification"),
        ("--jobs -1", "--jobs -1 is negative"),
        ("--data no/such/folder", "--data no/such/folder: no such folder"),
    ):
        assert message in run_main(main, ["--data", small_samples, *options.split()]).mistake()
