import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.images import breaks_off, ends_whole, is_jpeg, read_header, read_lines


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
    assert not breaks_off(content + bytes(2000))
    assert not ends_whole(content + bytes(2000))
    assert breaks_off(content[: len(content) // 2])
    # As a download leaves it that allocates the file first.
    assert breaks_off(content[: len(content) // 2] + bytes(len(content) // 2))
    # Other files are not judged.
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


def test_lists_of_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.jpg\n\n  b c.jpg \r\n", encoding="utf-8")
    assert read_lines(path) == ["a.jpg", "b c.jpg"]
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"list.txt: not a text file in UTF-8"):
        read_lines(path)
    with pytest.raises(ValueError, match=r"none.txt: no such file"):
        read_lines(tmp_path / "none.txt")
