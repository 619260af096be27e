import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eval.propagation.masks import read_mask, resize_mask, single_object, without_void, write_mask


def saved(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def test_ids_survive_the_file_with_the_palette_of_pascal_voc(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "mask.png", mask)
    assert (read_mask(tmp_path / "mask.png") == mask).all()
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        palette = np.reshape(image.getpalette(), (256, 3))
    assert palette[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[[7, 8, 21, 255]].tolist() == [[128, 128, 128], [64, 0, 0], [128, 64, 128], [224, 224, 192]]


def test_every_kind_of_png_that_holds_ids(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(4, 15) // 16
    few_colours = Image.fromarray(values)
    few_colours.putpalette(bytes(12))
    for expected, content in (
        (values, saved(Image.fromarray(values))),
        (values, saved(few_colours, bits=2)),
        (values, cv2.imencode(".png", values, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP])[1].tobytes()),
        (values > 0, saved(Image.fromarray(values > 0))),
    ):
        (tmp_path / "mask.png").write_bytes(content)
        assert (read_mask(tmp_path / "mask.png") == expected).all()


def test_files_that_are_not_masks_are_named(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 9, (32, 32), np.uint8))
    image.putpalette(bytes(768))
    content = saved(image)
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")
    # Pillow reads a file with too few pixels as if the rest were background.
    few = b"IDAT" + zlib.compress(zlib.decompress(content[start + 4 : start + 4 + length])[:-33])
    short = [content[: start - 4], (len(few) - 4).to_bytes(4, "big"), few, zlib.crc32(few).to_bytes(4, "big")]
    path = tmp_path / "mask.png"
    with pytest.raises(ValueError, match=r"mask\.png: no such mask"):
        read_mask(path)
    for wrong, message in (
        (content[: start + 9] + bytes([content[start + 9] ^ 1]) + content[start + 10 :], "damaged"),
        (content[: start + length // 2], "damaged"),
        (b"".join([*short, content[start + 8 + length :]]), "1023 bytes of pixels"),
        (content[: start - 4] + content[start + 8 + length :], "no pixels"),
        (b"not an image", "damaged"),
        (saved(Image.new("RGB", (4, 4))), "mode RGB"),
        (cv2.imencode(".jpg", np.zeros((4, 4)))[1].tobytes(), "a JPEG file"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"mask\.png: .*{message}"):
            read_mask(path)


def test_ids_are_kept_or_merged() -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    assert without_void(mask).tolist() == [[0, 1, 2, 0]]
    assert single_object(mask).tolist() == [[0, 1, 1, 1]]
    assert resize_mask(np.array([[0, 3], [7, 0]], np.uint8), (4, 2)).tolist() == [[0, 3], [0, 3], [7, 0], [7, 0]]
