import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tools.data_doctor.conftest import HEIGHT, WIDTH, draw_photo
from tools.data_doctor.image_files import (
    Damage,
    decode_labels,
    decode_mask,
    decode_photo,
    jpeg_fault,
    look,
    look_at_labels,
    png_fault,
)

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    draw_photo(tmp_path / "photo.jpg", 0)
    return tmp_path / "photo.jpg"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.png"
    Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 7).save(path)
    return path


@pytest.mark.parametrize("examine", [look, decode_photo])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "quality": 30}])
def test_a_whole_photograph(photo: Path, examine: object, options: dict[str, object]) -> None:
    Image.open(photo).save(photo, **options)  # type: ignore[arg-type]
    facts = examine(photo)  # type: ignore[operator]
    assert (facts.damage, facts.size, facts.turned) == (None, (WIDTH, HEIGHT), False)


@pytest.mark.parametrize("examine", [look, decode_photo, look_at_labels, decode_labels, decode_mask])
@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", Damage.EMPTY),
        (LFS_POINTER, Damage.LFS_POINTER),
        (b"\n<!DOCTYPE html><html>404</html>", Damage.WEB_PAGE),
        (b"nothing of the kind", Damage.NOT_AN_IMAGE),
        (bytes(5000), Damage.NOT_AN_IMAGE),
    ],
)
def test_what_is_no_image(tmp_path: Path, examine: object, content: bytes, damage: Damage) -> None:
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    assert examine(path).damage is damage  # type: ignore[operator]


def test_a_broken_link(tmp_path: Path) -> None:
    path = tmp_path / "link.jpg"
    path.symlink_to(tmp_path / "nowhere.jpg")
    assert look(path).damage is Damage.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(photo: Path) -> None:
    photo.chmod(0)
    assert look(photo).damage is Damage.UNREADABLE


@pytest.mark.parametrize("filled_up", [False, True])
def test_a_cut_file_shows_at_its_end(photo: Path, labels: Path, filled_up: bool) -> None:
    for path, examine in ((photo, look), (labels, look_at_labels)):
        content = path.read_bytes()
        kept = content[: -len(content) // 3]
        # Some download programs allocate the whole file first.
        path.write_bytes(kept + bytes(len(content) - len(kept)) if filled_up else kept)
        assert examine(path).damage is Damage.TRUNCATED
        assert examine(path).size == (WIDTH, HEIGHT)


def test_bytes_after_the_end_do_not_matter(photo: Path, labels: Path) -> None:
    for path, examine in ((photo, look), (photo, decode_photo), (labels, look_at_labels), (labels, decode_labels)):
        path.write_bytes(path.read_bytes() + b"camera's own bytes")
        assert examine(path).damage is None


def test_only_decoding_finds_a_photograph_damaged_in_its_middle(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(photo.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    photo.write_bytes(content)
    assert look(photo).damage is None
    facts = decode_photo(photo)
    assert facts.damage is Damage.CORRUPT
    assert "Corrupt JPEG data" in facts.detail
    # What the decoder prints is taken, not shown.
    assert capfd.readouterr().err == ""


def test_standard_error_works_after_a_decoders_warning(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = photo.read_bytes()
    assert jpeg_fault(content[: len(content) // 2] + b"\xff\xd9")
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_only_decoding_finds_a_label_map_damaged_in_its_middle(labels: Path) -> None:
    content = bytearray(labels.read_bytes())
    content[len(content) // 2] ^= 0xFF
    labels.write_bytes(content)
    assert look_at_labels(labels).damage is None
    for examine in (decode_labels, decode_mask):
        assert examine(labels).damage is Damage.CORRUPT


def test_a_wrong_checksum_alone_is_found(labels: Path) -> None:
    # Pillow decodes this file without a word.
    content = bytearray(labels.read_bytes())
    position = content.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", content, position)
    content[position + 8 + length] ^= 1
    labels.write_bytes(content)
    assert png_fault(bytes(content)) == f"wrong checksum of the IDAT chunk at byte {position}"
    assert decode_labels(labels).damage is Damage.CORRUPT
    assert decode_mask(labels).damage is Damage.CORRUPT


def test_chunks_of_a_whole_file(labels: Path) -> None:
    assert png_fault(labels.read_bytes()) == ""
    assert png_fault(labels.read_bytes()[:-12]) == "breaks off within a chunk"
    assert png_fault(b"no PNG") == ""
    assert zlib.crc32(b"IEND").to_bytes(4, "big") == labels.read_bytes()[-4:]


def test_values_of_a_label_map(labels: Path) -> None:
    assert decode_labels(labels).values == decode_mask(labels).values == tuple(range(7))
    assert look_at_labels(labels).values is None


@pytest.mark.parametrize("examine", [look_at_labels, decode_labels, decode_mask])
def test_colours_are_no_labels(labels: Path, examine: object) -> None:
    Image.open(labels).convert("RGB").save(labels)
    assert examine(labels).damage is Damage.COLOUR  # type: ignore[operator]


def test_an_orientation_that_turns(photo: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(photo, exif=exif)
    assert look(photo).turned
    exif[0x0112] = 3  # upside down: the size stays
    Image.open(photo).save(photo, exif=exif)
    assert not look(photo).turned
