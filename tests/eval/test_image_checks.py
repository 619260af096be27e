"""What a look at image files finds: each sort of damage, and entries of a folder that no task reads."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval import image_checks
from eval.image_checks import Decode, ImageFacts, by_opencv, by_pillow, label_map, look_at

WIDTH, HEIGHT = 64, 48
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.png"
    Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 7).save(path)
    return path


def zero_the_middle(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])


def zero_the_checksum(path: Path) -> None:
    """The last one of a PNG's pixels, which Pillow does not look at when it decodes them."""
    content = path.read_bytes()
    path.write_bytes(content[:-16] + bytes(4) + content[-12:])


@pytest.mark.parametrize("further_bytes", [0, 2000])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "quality": 30}])
def test_whole_images_and_bytes_after_their_end(photo: Path, labels: Path, options: dict[str, Any], further_bytes: int) -> None:
    Image.open(photo).save(photo, **options)
    for path in (photo, labels):
        path.write_bytes(path.read_bytes() + bytes(further_bytes))
    for decode in (None, by_opencv, by_pillow):
        assert look_at(photo, decode) == ImageFacts(photo, size=(WIDTH, HEIGHT))
    for decode, values in ((None, None), (label_map, tuple(range(7)))):
        assert look_at(labels, decode, labels=True) == ImageFacts(labels, size=(WIDTH, HEIGHT), values=values)


@pytest.mark.parametrize("decode", [None, by_opencv, by_pillow, label_map])
@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "empty"),
        (LFS_POINTER, "Git LFS pointers"),
        (b"\n<!DOCTYPE html><html>404</html>", "web pages"),
        (bytes(5000), "not images"),
    ],
)
def test_a_file_that_is_not_an_image(tmp_path: Path, decode: Decode | None, content: bytes, damage: str) -> None:
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    assert look_at(path, decode).damage.startswith(damage)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.jpg")
    assert "unreadable" in look_at(path, decode).damage


@pytest.mark.parametrize("filled_up", [False, True])
def test_a_cut_file_shows_at_its_end(photo: Path, labels: Path, filled_up: bool) -> None:
    for path in (photo, labels):
        content = path.read_bytes()
        kept = content[: -len(content) // 3]
        # Some download programs allocate the whole file first.
        path.write_bytes(kept + bytes(len(content) - len(kept)) if filled_up else kept)
        assert look_at(path) == ImageFacts(path, size=(WIDTH, HEIGHT), damage="cut off before their end")


def test_only_decoding_finds_an_image_damaged_in_its_middle(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    zero_the_middle(photo)
    assert not look_at(photo).damage
    facts = look_at(photo, by_opencv)
    assert facts.damage == "damaged inside"
    assert "Corrupt JPEG data" in facts.detail
    assert capfd.readouterr().err == "", "the decoder's warning is not shown"
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_damaged_label_maps(labels: Path) -> None:
    zero_the_checksum(labels)
    assert np.asarray(Image.open(labels)).max() == 6
    assert not look_at(labels, labels=True).damage
    assert look_at(labels, label_map, labels=True).damage == "damaged inside"
    Image.new("RGB", (4, 4)).save(labels)
    for decode in (None, label_map):
        assert look_at(labels, decode, labels=True).damage.startswith("colour images")


def test_reading_a_pipe_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    facts = look_at(tmp_path / "pipe.jpg")
    assert (facts.damage, facts.detail) == ("unreadable (broken links, permissions)", "a folder, pipe or device, not a file")


def test_label_maps_are_of_a_format_that_keeps_every_number(labels: Path) -> None:
    Image.open(labels).save(labels, "JPEG")
    assert look_at(labels, labels=True).damage == "JPEG images in a PNG's name, which may have changed the numbers"


def test_findings_name_files_by_their_damage_and_size(tmp_path: Path) -> None:
    (damaged,) = image_checks.damage_findings([ImageFacts(tmp_path / "a/b.jpg", damage="empty")], tmp_path, "get it again")
    assert str(damaged) == "files are empty: a/b.jpg; get it again"
    facts = ImageFacts(tmp_path / "photo.jpg", size=(64, 48))
    pairs = [(facts, (64, 48)), (facts, None), (facts._replace(size=None), (1, 1))]
    assert image_checks.size_findings(pairs, tmp_path, "x") == []
    (wrong,) = image_checks.size_findings([(facts, (32, 24))], tmp_path, "their label maps")
    assert (wrong.kind, wrong.names) == ("wrong", ("photo.jpg (64 x 48 instead of 32 x 24)",))


def test_entries_of_a_folder_are_sorted_by_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "set/val"
    (folder / "val").mkdir(parents=True)
    (folder / "thumbnails").mkdir()
    for name in ("a.jpg", "b.JPG", "c.jpeg", "a.JPEG", "d.jpg.part", "._a.jpg", "Thumbs.db", "e.txt"):
        (folder / name).touch()
    images, findings = image_checks.list_images(folder, ".jpg", tmp_path / "set")
    assert images == {"a": folder / "a.JPEG", "b": folder / "b.JPG", "c": folder / "c.jpeg"}
    assert {(finding.kind, finding.names) for finding in findings} == {
        ("wrong", ("val/a.jpg",)),  # which of the two is meant?
        ("misplaced", ("val/val",)),
        ("note", ("val/d.jpg.part",)),
        ("note", ("val/._a.jpg", "val/Thumbs.db")),
        ("note", ("val/thumbnails",)),
        ("note", ("val/e.txt",)),
    }


def test_several_processes_see_what_one_sees(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_checks, "SHOWN_AFTER_S", 0.0)
    paths = [photo, *(shutil.copy(photo, tmp_path / f"{number}.jpg") for number in range(1, 600))]
    zero_the_middle(paths[400])
    facts = list(image_checks.look_at_all(paths, 2, "COCO 2017 val2017", by_opencv))
    assert "COCO 2017 val2017" in capsys.readouterr().err
    assert [fact.path for fact in facts] == paths
    assert [index for index, fact in enumerate(facts) if fact.damage] == [400]
    assert list(image_checks.look_at_all(paths, 1, "test", by_opencv)) == facts
