"""Multi-crop views: geometry and determinism."""

import io

import numpy as np
import pytest
from PIL import Image

from pretrain.config import ViewsConfig
from pretrain.data.colours import change_colours
from pretrain.data.views import SHARED_SIZE, ViewKind, make_views, view_kinds


def jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_the_box_is_where_the_pixels_come_from() -> None:
    """A view without colour changes equals its own box, cut and mirrored by hand."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((70, 60), Image.Resampling.BICUBIC))
    kinds = [ViewKind(16, (0.2, 0.8), 0.5, 0.5)] * 20
    views = make_views(pixels, kinds, rng, colours=False)
    for planes, box in zip(views.pixels, views.boxes, strict=True):
        cut = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
        expected = np.asarray(Image.fromarray(cut).resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
        if box.flip:
            expected = expected[:, ::-1]
        assert np.abs(planes.transpose(1, 2, 0) - expected).max() <= 1
    assert {box.flip for box in views.boxes} == {True, False}


def test_colours_follow_the_geometry() -> None:
    """With colours, a view is what its draws make of the same view without."""
    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    kinds = view_kinds(ViewsConfig(global_size=32, local_size=16, local_crops=3))
    changed, plain = (make_views(pixels, kinds, np.random.default_rng(2), colours=colours) for colours in (True, False))
    assert changed.boxes == plain.boxes
    for view, (after, before) in enumerate(zip(changed.pixels, plain.pixels, strict=True)):
        expected = change_colours(np.ascontiguousarray(before.transpose(1, 2, 0)), plain.colours, view)
        assert np.array_equal(after.transpose(1, 2, 0), expected)
    assert not np.array_equal(changed.pixels[0], plain.pixels[0])


def test_views_depend_on_the_generator_alone() -> None:
    content = jpeg(np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    kinds = view_kinds(ViewsConfig(global_size=32, local_size=16, local_crops=3, photometric_patch=8))
    first, again, other = (make_views(content, kinds, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert [view.shape for view in first.pixels] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 3
    assert first.boxes == again.boxes
    assert all(map(np.array_equal, first.pixels, again.pixels))
    assert not all(map(np.array_equal, first.pixels, other.pixels))


def test_shared_views_are_of_the_resized_image() -> None:
    """PW-Self resizes by torchvision's Resize on Pillow images first."""
    pixels = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((90, 400)))
    resized = np.asarray(Image.fromarray(pixels).resize((SHARED_SIZE, SHARED_SIZE), Image.Resampling.BILINEAR))
    kinds = view_kinds(ViewsConfig(global_size=32, local_size=16, local_crops=1))
    shared = make_views(pixels, kinds, np.random.default_rng(0), shared=True, colours=False)
    expected = make_views(resized, kinds, np.random.default_rng(0), colours=False)
    assert shared.boxes == expected.boxes
    for ours, theirs in zip(shared.pixels, expected.pixels, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_blur_and_solarisation_belong_to_the_published_views() -> None:
    kinds = view_kinds(ViewsConfig())
    assert [kind.blur_probability for kind in kinds] == [1.0, 0.1, *[0.5] * 8]
    assert [kind.solarize_probability for kind in kinds] == [0.0, 0.2, *[0.0] * 8]
    assert [kind.scale for kind in kinds] == [(0.25, 1.0)] * 2 + [(0.05, 0.25)] * 8


def test_scales_must_be_ascending() -> None:
    with pytest.raises(ValueError, match="global_scale"):
        ViewsConfig(global_scale=(0.9, 0.3))


def test_colours_per_patch_come_after_the_workers_colours() -> None:
    with pytest.raises(ValueError, match=r"leave out views\.on_device"):
        ViewsConfig(photometric_patch=16, on_device=True)
