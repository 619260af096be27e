import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tools.data_doctor.conftest import Examine, only
from tools.data_doctor import ade

ROOT = "ade/ADEChallengeData2016"
PHOTO = f"{ROOT}/images/validation/ADE_val_00000002.jpg"
LABELS = f"{ROOT}/annotations/validation/ADE_val_00000002.png"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _label_151(path: Path) -> None:
    labels = np.array(Image.open(path))
    labels[0, 0] = 151
    Image.fromarray(labels).save(path)


def _flip_a_byte_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_healthy_subset(examine_task: Examine) -> None:
    for deep in (False, True):
        report = examine_task("segmentation", deep)
        assert report.state == "subset"
        assert report.findings == []
        assert [(split.name, split.found, split.full) for split in report.splits] == [
            ("training", 3, 20_210),
            ("validation", 2, 2_000),
        ]


@pytest.mark.parametrize(
    ("file", "damage", "kind", "phrase"),
    [
        (PHOTO, Path.unlink, "missing", "lacks the image of label maps"),
        (LABELS, Path.unlink, "missing", "lacks the label map of images"),
        (PHOTO, _cut, "damaged", "cut off"),
        (LABELS, _cut, "damaged", "cut off"),
        (LABELS, lambda path: path.write_bytes(b""), "damaged", "empty"),
        (LABELS, _flip_a_byte_in_the_middle, "damaged", "damaged inside"),
        (LABELS, lambda path: Image.open(path).convert("RGB").save(path), "damaged", "colour images"),
        (PHOTO, lambda path: path.rename(path.with_suffix(".JPG")), "misnamed", "an ending"),
        (LABELS, lambda path: path.rename(path.with_suffix(".PNG")), "misnamed", "an ending"),
        (PHOTO, lambda path: Image.open(path).resize((32, 24)).save(path), "wrong", "differ in size from their label maps"),
        (LABELS, _label_151, "wrong", "labels other than 0 to 150"),
    ],
)
def test_a_damaged_file_is_named(
    data: Path, examine_task: Examine, file: str, damage: Callable[[Path], object], kind: str, phrase: str
) -> None:
    damage(data / file)
    finding = only(examine_task("segmentation"), kind)
    assert phrase in finding.what
    assert len(finding.names) == 1
    assert "ADE_val_00000002" in finding.names[0]


def test_without_deep_labels_are_read_from_some_maps(
    data: Path, examine_task: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ade, "_LABELS_READ", 1)
    _label_151(data / LABELS)
    assert examine_task("segmentation").findings == []
    assert only(examine_task("segmentation", deep=True), "wrong").names == ("ADE_val_00000002.png (151)",)


def test_only_deep_finds_a_photograph_damaged_in_its_middle(data: Path, examine_task: Examine) -> None:
    content = bytearray((data / PHOTO).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    (data / PHOTO).write_bytes(content)
    assert examine_task("segmentation").findings == []
    assert "damaged inside" in only(examine_task("segmentation", deep=True), "damaged").what


def test_few_absent_pairs_of_the_published_set_are_named(
    data: Path, examine_task: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ade.FULL_SIZES, "validation", 3)
    report = examine_task("segmentation")
    assert report.state == "subset"
    assert only(report, "note").names == ("ADE_val_00000003",)
    monkeypatch.setitem(ade.FULL_SIZES, "validation", 2)
    monkeypatch.setitem(ade.FULL_SIZES, "training", 3)
    assert examine_task("segmentation").state == "complete"


@pytest.mark.parametrize("folder", ["images/training", "annotations/validation"])
def test_a_missing_folder(data: Path, examine_task: Examine, folder: str) -> None:
    shutil.rmtree(data / ROOT / folder)
    finding = only(examine_task("segmentation"), "missing")
    assert finding.what == f"there is no folder {folder}"
    assert "ADEChallengeData2016.zip" in finding.advice


def test_an_empty_folder(data: Path, examine_task: Examine) -> None:
    shutil.rmtree(data / ROOT / "annotations/training")
    (data / ROOT / "annotations/training").mkdir()
    report = examine_task("segmentation")
    assert "there are no .png files in annotations/training" in {finding.what for finding in report.problems}


@pytest.mark.parametrize("place", [f"{ROOT}/ADEChallengeData2016", "ADEChallengeData2016", "ade20k/ADEChallengeData2016"])
def test_the_whole_set_elsewhere(data: Path, examine_task: Examine, place: str) -> None:
    (data / ROOT).rename(data / "moved")
    (data / place).parent.mkdir(parents=True, exist_ok=True)
    (data / "moved").rename(data / place)
    assert only(examine_task("segmentation"), "misplaced").names == (str(data / place),)


def test_an_archive_that_is_not_unpacked(data: Path, examine_task: Examine) -> None:
    shutil.rmtree(data / ROOT)
    with zipfile.ZipFile(data / "ADEChallengeData2016.zip", "w") as archive:
        archive.writestr("x", b"x")
    report = examine_task("segmentation")
    assert only(report, "missing").advice == f"unzip -q {data}/ADEChallengeData2016.zip -d {data}/ade"
