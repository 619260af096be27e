"""Multi-crop views: what is drawn, how images are decoded, where crops come from, and that the same draws make the same views."""

import functools
import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from pretrain.config import Interpolation, ViewsConfig
from pretrain.data.colours import ColourDraws, change_colours
from pretrain.data.views import (
    SHARED_SIZE,
    ViewDraws,
    ViewKind,
    decode,
    decode_whole,
    draw_boxes,
    draw_views,
    image_size,
    make_views,
    resized_crop,
    view_kinds,
)
from tests.references.dino_views import pillow_view

IMAGES = 4000
UNLIKELY = 1e-4
"""A test with a fixed seed that falls below has found a wrong distribution."""
KINDS = view_kinds(ViewsConfig())
SMALL_KINDS = view_kinds(ViewsConfig(global_size=32, local_size=16, local_crops=3))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def scene(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 255, (height // 24, width // 24, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


# What is drawn has the published pipeline's distribution.


def boxes(width: int, height: int, scale: tuple[float, float], count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    return draw_boxes(width, height, np.array([scale] * count), np.random.default_rng(seed))


@functools.cache
def drawn(saturation: float) -> ViewDraws:
    """For many images: [images, views, ...]."""
    rng, kinds = np.random.default_rng(0), view_kinds(ViewsConfig(saturation=saturation))
    boxes, colours = zip(*(draw_views(kinds, 400, 300, rng) for _ in range(IMAGES)), strict=True)
    return ViewDraws(np.stack(boxes), ColourDraws(*map(np.stack, zip(*colours, strict=True))))


def assert_rate(hits: npt.NDArray[np.bool_], probability: float) -> None:
    if probability in (0.0, 1.0):
        assert (hits == bool(probability)).all()
    else:
        assert stats.binomtest(int(hits.sum()), hits.size, probability).pvalue > UNLIKELY


@settings(max_examples=200, deadline=None)
@given(width=st.integers(1, 600), height=st.integers(1, 600), smallest=st.floats(0.01, 1.0), seed=st.integers(0, 2**32))
def test_boxes_lie_inside_the_image(width: int, height: int, smallest: float, seed: int) -> None:
    boxes_V4 = boxes(width, height, (smallest, 1.0), 3, seed)
    assert (boxes_V4[:, 2:] >= 1).all()
    assert (boxes_V4[:, :2] >= 0).all()
    assert (boxes_V4[:, :2] + boxes_V4[:, 2:] <= (height, width)).all()


@pytest.mark.parametrize("scale", [(0.25, 1.0), (0.05, 0.25)])
@pytest.mark.parametrize(("width", "height"), [(400, 300), (150, 500)])
def test_boxes_are_distributed_as_torchvisions(scale: tuple[float, float], width: int, height: int) -> None:
    """Each of top, left, height and width, the area and the aspect ratio; the narrow image needs several attempts."""
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(IMAGES)])
    ours = boxes(width, height, scale, IMAGES)
    values = [np.column_stack([box, box[:, 2] * box[:, 3], box[:, 3] / box[:, 2]]) for box in (ours, theirs)]
    assert stats.ks_2samp(*values).pvalue.min() > UNLIKELY


def test_where_nothing_fits_the_largest_central_box() -> None:
    """As torchvision falls back: 600 x 100 allows at most 4:3."""
    image = torch.empty(3, 100, 600)
    theirs = RandomResizedCrop.get_params(image, [1.0, 1.0], [3 / 4, 4 / 3])
    assert boxes(600, 100, (1.0, 1.0), 2).tolist() == [list(theirs)] * 2
    assert boxes(100, 600, (1.0, 1.0), 1).tolist() == [[(600 - 133) // 2, 0, 133, 100]]


def test_operations_occur_as_often_as_published() -> None:
    boxes, colours = drawn(saturation=0.2)
    assert_rate(boxes[..., 4], 0.5)
    assert_rate(colours.jitter_V, 0.8)
    assert_rate(colours.grey_V, 0.2)
    for view, blur in enumerate([1.0, 0.1, *[0.5] * 8]):
        assert_rate(colours.radius_V[:, view] > 0, blur)
    for view, solarisation in enumerate([0.0, 0.2, *[0.0] * 8]):
        assert_rate(colours.solarise_V[:, view], solarisation)


@pytest.mark.parametrize("saturation", [0.2, 0.4])
def test_parameters_and_orders_are_uniform_in_the_published_ranges(saturation: float) -> None:
    """The ranges are those that torchvision's ColorJitter makes of DINO's and VISSL's numbers."""
    colours, published = drawn(saturation).colours, ColorJitter(0.4, 0.4, saturation, 0.1)
    ranges = (published.brightness, published.contrast, published.saturation, published.hue)
    values = [*np.moveaxis(colours.factors_V4, -1, 0), colours.radius_V[colours.radius_V > 0]]
    for value, (low, high) in zip(values, [*ranges, (0.1, 2.0)], strict=True):
        assert stats.kstest(value.ravel(), stats.uniform(low, high - low).cdf).pvalue > UNLIKELY
    _, counts = np.unique(colours.order_V4.reshape(-1, 4), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_the_image_does_not_change_how_much_is_drawn() -> None:
    """So that images that share a generator's seed share their colours, too."""
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    draws = draw_views(KINDS, 400, 300, first), draw_views(KINDS, 20, 900, second)
    assert all(map(np.array_equal, draws[0].colours, draws[1].colours))
    assert first.random() == second.random()


# Decoded images and crops are Pillow's, within a stated number of levels of 255.

ROTATED = Image.Exif()
ROTATED[0x0112] = 6
SCENE = scene(97, 61)
IMAGES_OF_A_SCENE = {
    "jpeg": encoded(SCENE),
    "progressive": encoded(SCENE, progressive=True, quality=60),
    "444": encoded(SCENE, subsampling=0),
    "rotated": encoded(SCENE, exif=ROTATED),
    "grey": encoded(SCENE.convert("L")),
    "cmyk": encoded(SCENE.convert("CMYK")),
    "png": encoded(SCENE, "PNG"),
    "palette": encoded(SCENE.convert("P"), "PNG"),
    "webp": encoded(SCENE, "WEBP"),
}
DAMAGED = {
    "cut jpeg": encoded(SCENE)[:900],
    "cut png": encoded(SCENE, "PNG")[:900],
    "text": b"no image at all",
    "empty": b"",
    "no pixels": encoded(SCENE).split(b"\xff\xda")[0] + b"\xff\xd9",
    "decompression bomb": encoded(SCENE).replace(b"\x08\x00\x3d\x00\x61\x03", b"\x08\xff\xff\xff\xff\x03"),  # height, width
    "no size": b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00\x03" + bytes(20) + b"\xff\xd9",
}


@pytest.mark.parametrize("kind", IMAGES_OF_A_SCENE)
def test_pixels_are_pillows(kind: str) -> None:
    """Exactly, also where a camera noted that it was turned, which the published pipeline leaves alone."""
    content = IMAGES_OF_A_SCENE[kind]
    assert image_size(content) == (97, 61)
    assert np.array_equal(decode_whole(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_keep_their_upper_eight(form: str) -> None:
    ramp_HW = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(2, 0)
    pixels_HW3 = decode_whole(encoded(Image.fromarray(ramp_HW), form))
    assert np.array_equal(pixels_HW3, np.repeat(ramp_HW[..., None] >> 8, 3, axis=2))


@pytest.mark.parametrize("form", ["jpeg", "progressive", "444", "grey", "cmyk"])
def test_a_photo_with_a_film_after_it_is_whole(form: str) -> None:
    content = IMAGES_OF_A_SCENE[form]
    film = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + np.random.default_rng(1).bytes(99_999)
    assert np.array_equal(decode_whole(content + film), decode_whole(content))
    with pytest.raises(OSError, match="breaks off"):
        decode_whole(content[:-200] + bytes(999))


@pytest.mark.parametrize(("width", "height"), [(9460, 9460), (65500, 2000)])
def test_images_too_large_to_decode_are_known_by_their_header(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    """Pillow itself only warns of twice as many pixels; OpenCV decodes what it gets."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    jpeg = encoded(SCENE).replace(b"\x08\x00\x3d\x00\x61\x03", b"\x08" + size + b"\x03")
    bitmap = encoded(Image.new("1", (width, height)), "PNG")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for content in (jpeg, bitmap):
        for read in (image_size, decode, lambda content: make_views(content, SMALL_KINDS, np.random.default_rng(0))):
            with pytest.raises(OSError, match=f"{width} x {height} pixels"):
                read(content)


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_images_are_errors(damage: str) -> None:
    with pytest.raises(OSError, match=r"\w"):
        decode_whole(DAMAGED[damage])
    with pytest.raises(OSError, match=r"\w"):
        make_views(DAMAGED[damage], SMALL_KINDS, np.random.default_rng(0))


@pytest.mark.parametrize(("times", "scale"), [(25, 8), (16, 8), (15.9, 4), (8, 4), (7.9, 2), (4, 2), (3.9, 1), (0.5, 1)])
def test_large_images_are_decoded_no_larger_than_needed(times: float, scale: int) -> None:
    pixels, divided = decode(encoded(scene(1024, 768)), times)
    assert divided == scale
    assert pixels.shape == (768 // scale, 1024 // scale, 3)


@pytest.mark.parametrize("seed", range(5))
def test_crops_of_scaled_decoding_are_those_of_the_whole(seed: int) -> None:
    """Boxes that end between the scaled image's pixels too, and at its border."""
    content = encoded(scene(1021, 763))
    rng = np.random.default_rng(seed)
    height, width = rng.integers(256, 763), rng.integers(256, 1021)
    top, left = rng.integers(0, 763 - height + 1), rng.integers(0, 1021 - width + 1)
    if seed == 0:
        top, left, height, width = 763 - 301, 1021 - 403, 301, 403
    box = np.array([top, left, height, width])
    pixels, scale = decode(content, min(height, width) / 32)
    assert scale >= 4
    whole = resized_crop(decode_whole(content), 1, box, 32)
    assert np.abs(resized_crop(pixels, scale, box, 32).astype(int) - whole).mean() < 1


# Views.


@pytest.mark.parametrize("size", [16, 150])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_views_without_colour_changes_are_pillows(interpolation: Interpolation, size: int) -> None:
    """Few values differ by more than a level: at edges, where Pillow limits what torch does not, or the reverse."""
    image = scene(192, 168)
    kinds = [ViewKind(size, (0.2, 0.8), 0, 0, interpolation=interpolation)] * 20
    views, draws = make_views(encoded(image, "PNG"), kinds, np.random.default_rng(1), colours=False)
    plain = draws._replace(colours=ColourDraws(*(np.zeros_like(values) for values in draws.colours)))
    expected = np.stack([pillow_view(image, kind, plain, view).astype(int) for view, kind in enumerate(kinds)])
    differences = np.abs(np.stack(views).transpose(0, 2, 3, 1) - expected)
    assert differences.mean() < 0.1
    assert (differences > 1).mean() < 1e-3
    assert set(draws.boxes_V5[:, 4]) == {0, 1}  # mirrored and not


def test_colours_follow_the_geometry() -> None:
    """With colours, a view is what its draws make of the same view without."""
    content = encoded(SCENE)
    (changed, drawn), (plain, draws) = (
        make_views(content, SMALL_KINDS, np.random.default_rng(2), colours=colours) for colours in (True, False)
    )
    assert np.array_equal(drawn.boxes_V5, draws.boxes_V5)
    for view, (after, before) in enumerate(zip(changed, plain, strict=True)):
        expected = change_colours(np.ascontiguousarray(before.transpose(1, 2, 0)), draws.colours, view)
        assert np.array_equal(after.transpose(1, 2, 0), expected)
    assert not np.array_equal(changed[0], plain[0])


def test_shared_views_are_of_the_resized_image() -> None:
    """PW-Self resizes by torchvision's Resize on Pillow images first; noise tells interpolations apart."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (410, 240, 3), dtype=np.uint8))
    resized = image.resize((SHARED_SIZE, SHARED_SIZE), Image.Resampling.BILINEAR)
    kinds = view_kinds(ViewsConfig(global_size=200, local_size=100, local_crops=1))
    views, draws = make_views(encoded(image, "PNG"), kinds, np.random.default_rng(0), shared=True, colours=False)
    expected, expected_draws = make_views(encoded(resized, "PNG"), kinds, np.random.default_rng(0), colours=False)
    assert np.array_equal(draws.boxes_V5, expected_draws.boxes_V5)
    assert all(np.abs(ours.astype(int) - theirs).max() <= 2 for ours, theirs in zip(views, expected, strict=True))
