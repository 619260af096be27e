import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.images import breaks_off, ends_whole, is_jpeg, read_lines, require_decodable, to_rgb, walk_files


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
    # A motion photo's film may hold any bytes, such as those that begin and end a JPEG's compressed data.
    film = b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(200_000) + b"\xff\xda\xff\xd9\xff\xda"
    assert not breaks_off(content + film)
    assert breaks_off(half + film.replace(b"\xff\xd9", b""))
    thumbnail = jpeg(progressive=progressive, exif=b"Exif\0\0" + content)
    assert not breaks_off(thumbnail + film)
    assert breaks_off(thumbnail[: len(content) + 900])
    # Other files are not judged.
    assert not is_jpeg(b"\x89PNG")
    assert not breaks_off(b"\x89PNG \xff\xda")


@given(more=st.binary(max_size=300), cut=st.integers(2, 10_000), progressive=st.booleans())
def test_a_jpeg_is_whole_whatever_follows_and_no_part_of_it_is(more: bytes, cut: int, progressive: bool) -> None:
    thumbnail = b"\xff\xe1" + (len(jpeg()) + 2).to_bytes(2, "big") + jpeg()
    plain = jpeg(progressive=progressive)
    content = plain[:2] + thumbnail + plain[2:]
    assert not breaks_off(content + more)
    assert breaks_off(content[: 2 + len(thumbnail)])  # ends as a JPEG does: with the end of the thumbnail
    assert breaks_off(content[: min(cut, len(content) - 1)])


def test_lists_of_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\ufeffa.jpg\n\n  b c.jpg \r\nd\u2028e.jpg", encoding="utf-8")
    assert read_lines(path) == ["a.jpg", "b c.jpg", "d\u2028e.jpg"]
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"list.txt: not a text file in UTF-8"):
        read_lines(path)
    with pytest.raises(ValueError, match=r"none.txt: no such file"):
        read_lines(tmp_path / "none.txt")


def test_folders_are_walked_once_without_hidden_entries(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/._1.jpg", "b/Thumbs.db", "b/c/2.JPG", ".ipynb_checkpoints/3.jpg", "__MACOSX/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/c/loop").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "b/c")
    found = [Path(parent).relative_to(tmp_path) / name for parent, names in walk_files(tmp_path) for name in names]
    assert sorted(map(str, found)) == ["a/1.jpg", "b/c/2.JPG"]
    with pytest.raises(FileNotFoundError):
        list(walk_files(tmp_path / "absent"))


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_16_bits_of_grey_keep_the_upper_8(suffix: str) -> None:
    """Pillow alone turns all but the darkest 255 of 65536 levels to white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    stream = io.BytesIO()
    Image.fromarray(ramp).save(stream, suffix)
    assert np.array_equal(np.asarray(to_rgb(Image.open(stream)))[..., 1], ramp >> 8)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_32_bits_of_grey_are_refused(kind: type) -> None:
    """Numbers from 0 to 1 became black, and those beyond 16 bits white."""
    stream = io.BytesIO()
    Image.fromarray(np.ones((4, 4), kind)).save(stream, "TIFF")
    with pytest.raises(ValueError, match="grey of 32 bits; convert it to 8 or 16 bits"):
        to_rgb(Image.open(stream))


def test_an_image_that_would_fill_the_memory_is_refused() -> None:
    require_decodable((9000, 9000))
    with pytest.raises(ValueError, match="20000 x 20000 pixels, more than"):
        require_decodable((20_000, 20_000))
