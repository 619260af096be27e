import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis.fingerprint import PUBLISHED_SIZES
from eval.davis.masks import write_mask
from tests.tools.data_doctor.conftest import FRAMES, HEIGHT, SEQUENCES, WIDTH, Examine, draw_photo, only
from tools.data_doctor import davis
from tools.data_doctor.davis_sequences import PUBLISHED_FRAMES

FRAME = "DAVIS/JPEGImages/480p/dog/00002.jpg"
MASK = "DAVIS/Annotations/480p/dog/00002.png"
FIRST_MASK = "DAVIS/Annotations/480p/dog/00000.png"


@pytest.fixture(autouse=True)
def short_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn sequences are as long as the published ones."""
    monkeypatch.setattr(davis, "PUBLISHED_FRAMES", {"train": {"bear": FRAMES}, "val": dict.fromkeys(SEQUENCES, FRAMES)})


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _flip_a_byte_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(content)


def _mask_of(*ids: int) -> Callable[[Path], None]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, number in enumerate(ids):
        mask[10 * row : 10 * row + 5] = number
    return lambda path: write_mask(path, mask)


def test_a_healthy_subset(examine_task: Examine) -> None:
    for deep in (False, True):
        report = examine_task("davis", deep)
        assert report.findings == []
        assert report.state == "subset"
        (val,) = report.splits
        assert (val.name, val.found, val.full, val.also) == ("val", 2, 30, "8 of 1,999 frames")


@pytest.mark.parametrize("split", ["train", "val"])
def test_published_lengths_add_up(split: str) -> None:
    lengths = PUBLISHED_FRAMES[split]
    assert (len(lengths), sum(lengths.values())) == PUBLISHED_SIZES["2017", split]


@pytest.mark.parametrize(
    ("file", "damage", "kind", "phrase", "name"),
    [
        (FRAME, Path.unlink, "missing", "masks have no frame", "dog/00002.png"),
        (MASK, Path.unlink, "missing", "frames have no mask", "dog/00002.jpg"),
        (FRAME, _cut, "damaged", "cut off", "JPEGImages/480p/dog/00002.jpg"),
        (MASK, _cut, "damaged", "cut off", "Annotations/480p/dog/00002.png"),
        (MASK, _flip_a_byte_in_the_middle, "damaged", "damaged inside", "Annotations/480p/dog/00002.png"),
        (MASK, lambda path: Image.open(path).convert("RGB").save(path), "damaged", "colour", "Annotations/480p/dog/00002.png"),
        (FRAME, lambda path: path.rename(path.with_suffix(".JPG")), "misnamed", "an ending", "JPEGImages/480p/dog/00002.JPG"),
        (MASK, lambda path: path.rename(path.with_suffix(".PNG")), "misnamed", "an ending", "Annotations/480p/dog/00002.PNG"),
        (
            FRAME,
            lambda path: Image.open(path).resize((32, 24)).save(path),
            "wrong",
            "differ in size",
            "JPEGImages/480p/dog/00002.jpg",
        ),
        (FIRST_MASK, _mask_of(), "wrong", "first masks show no object", "dog/00000.png"),
        (FIRST_MASK, _mask_of(255), "wrong", "first masks show no object", "dog/00000.png"),
        (MASK, _mask_of(1, 2, 3), "note", "objects that the first one lacks", "dog/00002.png (3)"),
        (FIRST_MASK, _mask_of(1, 2, 4), "note", "gaps in their object ids", "dog (1, 2, 4)"),
    ],
)
def test_a_damaged_file_is_named(
    data: Path, examine_task: Examine, file: str, damage: Callable[[Path], object], kind: str, phrase: str, name: str
) -> None:
    damage(data / file)
    finding = only(examine_task("davis"), kind)
    assert phrase in finding.what
    assert len(finding.names) == 1
    assert finding.names[0].startswith(name)


def test_undecided_pixels_are_no_object(data: Path, examine_task: Examine) -> None:
    _mask_of(1, 2, 255)(data / MASK)
    _mask_of(1, 2, 255)(data / FIRST_MASK)
    assert examine_task("davis").findings == []


def test_a_gap_in_the_numbering_is_what_the_evaluation_refuses(data: Path, examine_task: Examine) -> None:
    (data / FRAME).unlink()
    (data / MASK).unlink()
    (refusal,) = only(examine_task("davis"), "missing").names
    assert "00002.jpg: no such frame, though the sequence goes on after it" in refusal


def test_a_shortened_sequence_is_a_note(data: Path, examine_task: Examine) -> None:
    for place in ("JPEGImages/480p/dog/00003.jpg", "Annotations/480p/dog/00003.png"):
        (data / "DAVIS" / place).unlink()
    assert only(examine_task("davis"), "note").names == ("dog (3 of 4)",)


def test_only_deep_finds_a_frame_damaged_in_its_middle(data: Path, examine_task: Examine) -> None:
    content = bytearray((data / FRAME).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    (data / FRAME).write_bytes(content)
    assert examine_task("davis").findings == []
    assert "damaged inside" in only(examine_task("davis", deep=True), "damaged").what


def test_a_listed_sequence_without_frames(data: Path, examine_task: Examine) -> None:
    for kind in ("JPEGImages", "Annotations"):
        shutil.rmtree(data / "DAVIS" / kind / "480p/dog")
    finding = only(examine_task("davis"), "missing")
    assert finding.names == ("dog",)
    assert "take them off the list" in finding.advice


def test_other_splits_may_be_absent(data: Path, examine_task: Examine) -> None:
    (data / "DAVIS/ImageSets/2017/train.txt").write_text("bear\nbus\n")
    report = examine_task("davis")
    assert report.is_usable
    assert "no sequence is there" in only(report, "note").what
    for frame in range(FRAMES):
        draw_photo(data / f"DAVIS/JPEGImages/480p/bear/{frame:05d}.jpg", frame)
    shutil.copytree(data / "DAVIS/Annotations/480p/dog", data / "DAVIS/Annotations/480p/bear")
    report = examine_task("davis")
    assert [(split.name, split.found, split.full) for split in report.splits] == [("val", 2, 30), ("train", 1, 60)]
    assert only(report, "note").names == ("bus",)


def test_test_splits_have_first_masks_only(data: Path, examine_task: Examine) -> None:
    (data / "DAVIS/ImageSets/2017/test-dev.txt").write_text("golf\n")
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(data / "DAVIS" / kind / "480p/dog", data / "DAVIS" / kind / "480p/golf")
    for path in sorted((data / "DAVIS/Annotations/480p/golf").iterdir())[1:]:
        path.unlink()
    assert examine_task("davis").findings == []


def test_a_sequence_in_no_list_is_a_note(data: Path, examine_task: Examine) -> None:
    (data / "DAVIS/ImageSets/2017/val.txt").write_text("dog\n")
    assert only(examine_task("davis"), "note").names == ("blackswan",)


@pytest.mark.parametrize("place", ["ImageSets", "JPEGImages", "Annotations/480p"])
def test_a_missing_folder(data: Path, examine_task: Examine, place: str) -> None:
    shutil.rmtree(data / "DAVIS" / place)
    finding = only(examine_task("davis"), "missing")
    assert place in finding.what
    assert "DAVIS-2017-trainval-480p.zip" in finding.advice


@pytest.mark.parametrize("place", ["DAVIS/DAVIS", "davis2017", "videos/DAVIS"])
def test_the_whole_set_elsewhere(data: Path, examine_task: Examine, place: str) -> None:
    (data / "DAVIS").rename(data / "moved")
    (data / place).parent.mkdir(exist_ok=True)
    (data / "moved").rename(data / place)
    assert only(examine_task("davis"), "misplaced").names == (str(data / place),)


@pytest.mark.parametrize("folder", ["JPEGImages/480p", "JPEGImages/480p/dog", "Annotations"])
def test_a_folder_within_its_namesake(data: Path, examine_task: Examine, folder: str) -> None:
    place = data / "DAVIS" / folder
    place.rename(data / "moved")
    place.mkdir()
    (data / "moved").rename(place / place.name)
    report = examine_task("davis")
    assert not report.is_usable
    assert [finding.names for finding in report.findings if finding.kind == "misplaced"] == [(str(place / place.name),)]


def test_frames_that_are_all_misnamed_are_not_missing_too(data: Path, examine_task: Examine) -> None:
    for path in (data / "DAVIS/JPEGImages").rglob("*.jpg"):
        path.rename(path.with_suffix(".JPEG"))
    finding = only(examine_task("davis"), "misnamed")
    assert len(finding.names) == FRAMES * len(SEQUENCES)
    subprocess.run(finding.advice, shell=True, check=True)
    assert examine_task("davis").findings == []
