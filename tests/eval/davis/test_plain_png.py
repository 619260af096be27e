"""What the quick reader gives is what Pillow gives; it leaves all else to Pillow."""

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from eval.davis.masks import MaskError, read_mask
from eval.davis.plain_png import DamagedPngError, decode_plain_png


def saved(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


@settings(deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.booleans())
def test_values_are_pillows(values: np.ndarray, indexed: bool) -> None:
    image = Image.fromarray(values)
    if indexed:
        image.putpalette(bytes(range(256)) * 3)
    decoded = decode_plain_png(saved(image))
    if decoded is not None:  # Pillow may filter the rows of grey images
        assert decoded.dtype == np.uint8
        assert (decoded == values).all()
    assert decoded is not None or not indexed


def test_real_annotations_are_plain(real_data_dir: Path) -> None:
    paths = sorted((real_data_dir / "DAVIS/Annotations").rglob("*.png"))[:50]
    assert paths
    for path in paths:
        decoded = decode_plain_png(path.read_bytes())
        assert decoded is not None
        with Image.open(path) as image:
            assert (decoded == np.asarray(image)).all()


def test_other_pngs_are_left_to_pillow(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) // 16
    filtered = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP])[1].tobytes()
    few_colours = Image.fromarray(values)
    few_colours.putpalette(bytes(12))
    files = {
        "filtered": filtered,
        "two_bits": saved(few_colours, bits=2),
        "binary": saved(Image.fromarray(values > 0)),
    }
    for name, content in files.items():
        assert decode_plain_png(content) is None, name
        (tmp_path / name).write_bytes(content)
        assert (read_mask(tmp_path / name) == (values > 0 if name == "binary" else values)).all()
    assert decode_plain_png(saved(Image.new("RGB", (8, 8)))) is None


@pytest.mark.parametrize("damage", ["checksum", "cut", "short", "long", "no end"])
def test_damaged_files_are_not_decoded(damage: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 9, (32, 32), np.uint8))
    image.putpalette(bytes(768))
    content = saved(image)
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")

    def with_data(data: bytes) -> bytes:
        chunk = b"IDAT" + data
        return (
            content[: start - 4]
            + len(data).to_bytes(4, "big")
            + chunk
            + zlib.crc32(chunk).to_bytes(4, "big")
            + content[start + 8 + length :]
        )

    rows = zlib.decompress(content[start + 4 : start + 4 + length])
    damaged = {
        "checksum": content[: start + 9] + bytes([content[start + 9] ^ 1]) + content[start + 10 :],
        "cut": content[: start + length // 2],
        "short": with_data(zlib.compress(rows[:-33])),
        "long": with_data(zlib.compress(rows + rows[:33])),
        "no end": content[:-12],
    }[damage]
    assert decode_plain_png(with_data(zlib.compress(rows))) is not None
    if damage == "short":  # Pillow reads it, as if the rest were background
        with pytest.raises(DamagedPngError, match="1023 bytes of pixels instead of 1056"):
            decode_plain_png(damaged)
    else:
        assert decode_plain_png(damaged) is None
    if damage in ("checksum", "cut", "short"):
        (tmp_path / "damaged.png").write_bytes(damaged)
        with pytest.raises(MaskError, match="damaged"):
            read_mask(tmp_path / "damaged.png")
