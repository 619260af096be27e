import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.images import breaks_off, ends_whole, is_jpeg, read_header, read_lines


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_only_a_cut_file_breaks_off(progressive: bool) -> None:
    content = jpeg(progressive=progressive)
    half = content[: len(content) // 2]
    assert is_jpeg(content)
    assert ends_whole(content)
    assert not ends_whole(content + bytes(2000))
    # The last one is as a download leaves it that allocates the file first.
    damage = {content: False, content + bytes(2000): False, half: True, half + bytes(2000): True}
    assert {given: breaks_off(given) for given in damage} == damage
    # Other files are not judged.
    assert not is_jpeg(b"\x89PNG")
    assert not breaks_off(b"\x89PNG \xff\xda")


def test_the_header_tells_the_size() -> None:
    content = jpeg()
    padded = content[:2] + b"\xff\xff" + content[2:]  # bytes 255 may stand before a marker
    assert [read_header(given) for given in (content, jpeg(progressive=True), padded)] == [(60, 40, 3)] * 3
    assert read_header(jpeg("CMYK", exif=b"Exif\0\0" + bytes(3000))) == (60, 40, 4)
    damaged = [b"\x89PNG", content[:2] + bytes(100), *(content[:end] for end in range(content.find(b"\xff\xc0") + 9))]
    assert [read_header(given) for given in damaged] == [None] * len(damaged)


def test_lists_of_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.jpg\n\n  b c.jpg \r\n", encoding="utf-8")
    assert read_lines(path) == ["a.jpg", "b c.jpg"]
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"list.txt: not a text file in UTF-8"):
        read_lines(path)
    with pytest.raises(ValueError, match=r"none.txt: no such file"):
        read_lines(tmp_path / "none.txt")
