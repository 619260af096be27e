import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.data_doctor.conftest import Examine, draw_photo, only

IMAGE = "000000000005.jpg"


def test_a_healthy_subset(examine_task: Examine) -> None:
    for deep in (False, True):
        report = examine_task("detection", deep)
        assert report.state == "subset"
        assert report.findings == []
        train, val = report.splits
        assert (train.name, train.found, train.full, train.also) == ("train2017", 3, 118_287, "4 of 860,001 annotations")
        assert (val.name, val.found, val.full, val.also) == ("val2017", 2, 5_000, "3 of 36,781 annotations")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def _replace(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "kind", "phrase"),
    [
        (Path.unlink, "missing", "images of instances_val2017.json are not in val2017"),
        (_cut, "damaged", "cut off before their end"),
        (_replace(b""), "damaged", "empty"),
        (_replace(b"version https://git-lfs.github.com/spec/v1\n"), "damaged", "Git LFS pointers"),
        (_replace(b"<html>404"), "damaged", "web pages"),
        (lambda path: path.rename(path.with_suffix(".JPG")), "misnamed", "an ending by which they are not found"),
        (lambda path: path.rename(path.with_suffix(".jpeg")), "misnamed", "an ending by which they are not found"),
    ],
)
def test_a_damaged_image_is_named(
    data: Path, examine_task: Examine, damage: Callable[[Path], object], kind: str, phrase: str
) -> None:
    damage(data / "coco/val2017" / IMAGE)
    finding = only(examine_task("detection"), kind)
    assert phrase in finding.what
    assert [Path(name).stem for name in finding.names] == [Path(IMAGE).stem]
    assert (
        "http://images.cocodataset.org/val2017/NAME" in finding.advice
        or "git lfs pull" in finding.advice
        or "mv " in finding.advice
    )


def test_only_deep_finds_damage_in_the_middle(data: Path, examine_task: Examine) -> None:
    path = data / "coco/val2017" / IMAGE
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    assert examine_task("detection").findings == []
    finding = only(examine_task("detection", deep=True), "damaged")
    assert "damaged inside" in finding.what
    assert finding.names[0].startswith(f"val2017/{IMAGE} (Corrupt JPEG data")


def test_an_image_of_another_size(data: Path, examine_task: Examine) -> None:
    from PIL import Image

    path = data / "coco/train2017/000000000002.jpg"
    Image.open(path).resize((32, 24)).save(path)
    finding = only(examine_task("detection"), "wrong")
    assert finding.names == ("train2017/000000000002.jpg (32 x 24 instead of 64 x 48)",)
    assert "instances_train2017.json" in finding.what


def test_an_image_that_nothing_lists_is_a_note(data: Path, examine_task: Examine) -> None:
    draw_photo(data / "coco/val2017/000000000077.jpg", 7)
    report = examine_task("detection")
    assert report.is_usable
    assert only(report, "note").names == ("000000000077.jpg",)


@pytest.mark.parametrize("part", ["annotations/instances_val2017.json", "train2017"])
def test_a_missing_part_is_named_with_its_address(data: Path, examine_task: Examine, part: str) -> None:
    path = data / "coco" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    finding = only(examine_task("detection"), "missing")
    assert part in finding.what
    assert finding.advice.startswith("get http://images.cocodataset.org/")
    assert finding.advice.endswith(f"unpack it in {data / 'coco'}")


@pytest.mark.parametrize(
    "content", [b"", b'{"images": [', b"version https://git-lfs.github.com/spec/v1", b"[]", b'{"images": []}']
)
def test_a_damaged_annotation_file(data: Path, examine_task: Examine, content: bytes) -> None:
    (data / "coco/annotations/instances_val2017.json").write_bytes(content)
    finding = only(examine_task("detection"), "damaged")
    assert "instances_val2017.json" in f"{finding.what} {finding.names}"


def test_categories_that_differ_are_what_the_evaluation_refuses(data: Path, examine_task: Examine) -> None:
    path = data / "coco/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"].pop()
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != 90]
    path.write_text(json.dumps(content))
    assert "the evaluation refuses it" in only(examine_task("detection"), "wrong").what


@pytest.mark.parametrize("folder", ["train2017", "annotations"])
def test_a_folder_within_its_namesake(data: Path, examine_task: Examine, folder: str) -> None:
    place = data / "coco" / folder
    place.rename(data / "moved")
    place.mkdir()
    (data / "moved").rename(place / folder)
    report = examine_task("detection")
    misplaced = [finding for finding in report.findings if finding.kind == "misplaced"]
    assert [finding.names for finding in misplaced] == [(str(place / folder),)]
    assert not report.is_usable


@pytest.mark.parametrize("place", ["coco/coco", "COCO2017", "datasets/coco"])
def test_the_whole_set_elsewhere(data: Path, examine_task: Examine, place: str) -> None:
    (data / "coco").rename(data / "moved")
    (data / place).parent.mkdir(exist_ok=True)
    (data / "moved").rename(data / place)
    report = examine_task("detection")
    finding = only(report, "misplaced")
    assert finding.names == (str(data / place),)
    assert "mv" in finding.advice
    assert not report.present


def test_an_archive_that_is_not_unpacked(data: Path, examine_task: Examine) -> None:
    shutil.rmtree(data / "coco/val2017")
    with zipfile.ZipFile(data / "coco/val2017.zip", "w") as archive:
        archive.writestr("val2017/x.jpg", b"x")
    finding = only(examine_task("detection"), "missing")
    assert finding.what == "archives lie there, not unpacked"
    assert finding.advice == f"unzip -q {data}/coco/val2017.zip -d {data}/coco"
    (data / "coco/val2017.zip").write_bytes(b"PK\x03\x04 and no more")
    assert only(examine_task("detection"), "damaged").names == (f"{data}/coco/val2017.zip",)


def test_leftovers_are_notes(data: Path, examine_task: Examine) -> None:
    with zipfile.ZipFile(data / "coco/train2017.zip", "w") as archive:
        archive.writestr("train2017/x.jpg", b"x")
    (data / "coco/__MACOSX").mkdir()
    (data / "coco/val2017/._000000000005.jpg").touch()
    (data / "coco/val2017/000000000006.jpg.part").touch()
    (data / "coco/val2017/thumbnails").mkdir()
    (data / "coco/val2017/index.txt").touch()
    report = examine_task("detection")
    assert report.is_usable
    notes = {name for finding in report.findings for name in finding.names}
    assert notes == {
        f"{data}/coco/train2017.zip",
        "__MACOSX",
        "val2017/._000000000005.jpg",
        "val2017/000000000006.jpg.part",
        "val2017/thumbnails",
        "val2017/index.txt",
    }
