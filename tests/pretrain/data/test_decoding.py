"""Decoded images and crops are Pillow's, within a stated number of levels of 255."""

import io

import numpy as np
import pytest
from PIL import Image

from pretrain.data.decoding import EncodedImage, Pixels, decode_whole, resize, resized_crop


def scene(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 24, width // 24, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(content: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


ROTATED = Image.Exif()
ROTATED[0x0112] = 6


@pytest.mark.parametrize(
    "content",
    [
        encoded(scene(97, 61)),
        encoded(scene(97, 61), progressive=True, quality=60),
        encoded(scene(97, 61), subsampling=0),
        encoded(scene(97, 61), exif=ROTATED),
        encoded(scene(97, 61).convert("L")),
        encoded(scene(97, 61).convert("CMYK")),
        encoded(scene(97, 61), "PNG"),
        encoded(scene(97, 61).convert("P"), "PNG"),
        encoded(scene(97, 61), "WEBP"),
    ],
    ids=["jpeg", "progressive", "444", "rotated", "grey", "cmyk", "png", "palette", "webp"],
)
def test_pixels_are_pillows(content: bytes) -> None:
    """Exactly, also where a camera noted that it was turned, which the published pipeline leaves alone."""
    image = EncodedImage(content)
    assert (image.width, image.height) == (97, 61)
    assert np.array_equal(decode_whole(content), by_pillow(content))


@pytest.mark.parametrize(
    "content",
    [
        encoded(scene(97, 61))[:900],
        encoded(scene(97, 61), "PNG")[:900],
        b"no image at all",
        b"",
        encoded(scene(97, 61)).split(b"\xff\xda")[0] + b"\xff\xd9",
        b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00\x03" + bytes(20) + b"\xff\xd9",
    ],
    ids=["cut jpeg", "cut png", "text", "empty", "no pixels", "no size"],
)
def test_damaged_images_are_errors(content: bytes) -> None:
    with pytest.raises(OSError, match=r"\w"):
        decode_whole(content)


def test_a_bomb_is_refused() -> None:
    content = bytearray(encoded(scene(97, 61)))
    frame = content.find(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(OSError, match="exceeds limit"):
        decode_whole(bytes(content))


@pytest.mark.parametrize(("mode", "size"), [("bicubic", 24), ("bicubic", 96), ("bicubic", 150), ("bilinear", 40)])
def test_resizing_is_pillows(mode: str, size: int) -> None:
    """Few values differ by more than one level: at edges, where Pillow limits what torch does not, or the reverse."""
    pixels = np.asarray(scene(97, 61))
    expected = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling[mode.upper()])).astype(int)
    difference = np.abs(resize(pixels, size, mode).transpose(1, 2, 0) - expected)
    assert difference.mean() < 0.1
    assert (difference > 1).mean() < 1e-3


def test_large_photographs_are_decoded_no_larger_than_needed() -> None:
    image = EncodedImage(encoded(scene(1024, 768)))
    for side, scale in ((800, 8), (512, 8), (511, 4), (256, 4), (255, 2), (128, 2), (127, 1), (20, 1)):
        box = np.array([[0, 0, min(side, 768), side]])
        picture = image.decode(box, [32])
        assert picture.scale == scale, side
        assert picture.pixels_HW3.shape == (768 // scale, 1024 // scale, 3)
    # The most demanding crop decides.
    assert image.decode(np.array([[0, 0, 700, 700], [0, 0, 140, 300]]), [32, 32]).scale == 2
    assert image.decode(np.array([[0, 0, 700, 700], [0, 0, 700, 700]]), [32, 224]).scale == 1


@pytest.mark.parametrize("seed", range(5))
def test_crops_of_scaled_decoding_are_those_of_the_whole(seed: int) -> None:
    """Boxes that end between the scaled image's pixels too, and at its border."""
    picture = scene(1021, 763)
    image = EncodedImage(encoded(picture))
    rng = np.random.default_rng(seed)
    height, width = rng.integers(256, 763), rng.integers(256, 1021)
    top, left = rng.integers(0, 763 - height + 1), rng.integers(0, 1021 - width + 1)
    if seed == 0:
        top, left, height, width = 763 - 301, 1021 - 403, 301, 403
    box = np.array([top, left, height, width])
    scaled = image.decode(box[None], [32])
    assert scaled.scale >= 4
    whole = image.decode(box[None], [1000])
    assert whole.scale == 1
    difference = np.abs(resized_crop(scaled, box, 32).astype(int) - resized_crop(whole, box, 32))
    assert difference.mean() < 1
