import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.image_files import ImageFacts, damaged_files, decode, decode_labels, look, look_at_labels, other_sizes, survey

WIDTH, HEIGHT = 90, 60
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

Examine = Callable[[Path], ImageFacts]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.png"
    Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 7).save(path)
    return path


@pytest.mark.parametrize("examine", [look, decode])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "quality": 30}])
def test_a_whole_image(photo: Path, examine: Examine, options: dict[str, object]) -> None:
    Image.open(photo).save(photo, **options)  # type: ignore[arg-type]
    assert examine(photo) == ImageFacts(photo, (WIDTH, HEIGHT))


@pytest.mark.parametrize("examine", [look, decode, look_at_labels, decode_labels])
@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "empty"),
        (LFS_POINTER, "Git LFS pointers"),
        (b"\n<!DOCTYPE html><html>404</html>", "web pages"),
        (b"nothing of the kind", "not images"),
        (bytes(5000), "not images"),
    ],
)
def test_what_is_not_an_image(tmp_path: Path, examine: Examine, content: bytes, damage: str) -> None:
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    assert examine(path).damage.startswith(damage)


def test_a_broken_link(tmp_path: Path) -> None:
    path = tmp_path / "link.jpg"
    path.symlink_to(tmp_path / "nowhere.jpg")
    assert look(path).damage.startswith("not to be opened")


@pytest.mark.parametrize("filled_up", [False, True])
def test_a_cut_file_shows_at_its_end(photo: Path, labels: Path, filled_up: bool) -> None:
    for path, examine in ((photo, look), (labels, look_at_labels)):
        content = path.read_bytes()
        kept = content[: -len(content) // 3]
        # Some download programs allocate the whole file first.
        path.write_bytes(kept + bytes(len(content) - len(kept)) if filled_up else kept)
        assert examine(path).damage == "cut off before their end"


def test_bytes_after_the_end_do_not_matter(photo: Path, labels: Path) -> None:
    for path, examine in ((photo, look), (photo, decode), (labels, look_at_labels), (labels, decode_labels)):
        path.write_bytes(path.read_bytes() + b"camera's own bytes")
        assert examine(path).damage == ""


def test_only_decoding_finds_an_image_damaged_in_its_middle(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(photo.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    photo.write_bytes(content)
    assert look(photo).damage == ""
    facts = decode(photo)
    assert facts.damage == "damaged inside"
    assert "Corrupt JPEG data" in facts.detail
    # What the decoder prints is taken, not shown, and standard error works afterwards.
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_a_wrong_checksum_alone_is_found(labels: Path) -> None:
    # Pillow decodes this file without a word.
    content = bytearray(labels.read_bytes())
    position = content.index(b"IDAT") - 4
    length = int.from_bytes(content[position : position + 4], "big")
    content[position + 8 + length] ^= 1
    labels.write_bytes(content)
    assert look_at_labels(labels).damage == ""
    assert decode_labels(labels).damage == "damaged inside"


def test_values_of_a_label_map(labels: Path) -> None:
    assert decode_labels(labels).values == tuple(range(7))
    assert look_at_labels(labels).values == ()


@pytest.mark.parametrize("examine", [look_at_labels, decode_labels])
def test_colours_are_no_labels(labels: Path, examine: Examine) -> None:
    Image.open(labels).convert("RGB").save(labels)
    assert examine(labels).damage.startswith("colour images")


def test_findings_name_the_files(photo: Path, labels: Path) -> None:
    labels.write_bytes(b"")
    facts = survey([photo, labels], look, 1, "test")
    (finding,) = damaged_files(facts, photo.parent, "copy them again")
    assert str(finding) == "1 files are empty (0 bytes): labels.png; copy them again"
    assert other_sizes([(facts[0], (WIDTH, HEIGHT))], photo.parent, "") == []
    (finding,) = other_sizes([(facts[0], (HEIGHT, WIDTH))], photo.parent, "the annotations")
    assert (finding.kind, finding.names) == ("wrong", ("photo.jpg (90 x 60 instead of 60 x 90)",))


def test_a_turned_image_is_noted(photo: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(photo, exif=exif)
    (finding,) = other_sizes([(look(photo), (WIDTH, HEIGHT))], photo.parent, "the annotations")
    assert (finding.kind, finding.names) == ("note", ("photo.jpg",))
    assert other_sizes([(look(photo), (HEIGHT, WIDTH))], photo.parent, "the annotations") == []


def test_many_files_are_examined_in_processes(labels: Path) -> None:
    facts = survey([labels] * 600, look_at_labels, 2, "test")
    assert facts == [look_at_labels(labels)] * 600
