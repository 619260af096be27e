import io

import numpy as np
import pytest
from PIL import Image

from common.jpeg import breaks_off, ends_whole, is_jpeg


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
