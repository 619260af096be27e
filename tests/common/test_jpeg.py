import io

import numpy as np
import pytest
from PIL import Image

from common.jpeg import breaks_off, ends_whole, is_jpeg, read_header


def _jpeg(progressive: bool) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", progressive=progressive)
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_only_a_cut_file_breaks_off(progressive: bool) -> None:
    content = _jpeg(progressive)
    assert is_jpeg(content)
    assert ends_whole(content)
    assert not breaks_off(content)
    assert not breaks_off(content + b"a few bytes of a camera's own")
    assert not ends_whole(content + b"a few bytes of a camera's own")
    assert breaks_off(content[: len(content) // 2])
    # As a download leaves it that allocates the file first.
    assert breaks_off(content[: len(content) // 2] + bytes(len(content) // 2))


def test_other_files_are_not_judged() -> None:
    assert not is_jpeg(b"\x89PNG")
    assert not breaks_off(b"\x89PNG \xff\xda")


@pytest.mark.parametrize("progressive", [False, True])
def test_the_header_tells_the_size(progressive: bool) -> None:
    content = _jpeg(progressive)
    assert read_header(content) == (60, 40, 3)
    stream = io.BytesIO()
    Image.new("CMYK", (5, 7)).save(stream, "JPEG", exif=b"Exif\0\0" + bytes(3000))
    assert read_header(stream.getvalue()) == (5, 7, 4)
    padded = content[:2] + b"\xff\xff" + content[2:]  # bytes 255 may stand before a marker
    assert read_header(padded) == (60, 40, 3)


def test_a_damaged_header_tells_nothing() -> None:
    content = _jpeg(progressive=False)
    assert read_header(b"\x89PNG") is None
    for end in range(content.find(b"\xff\xc0") + 9):
        assert read_header(content[:end]) is None
    assert read_header(content[:2] + bytes(100)) is None
