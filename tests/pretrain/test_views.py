"""Multi-crop views: geometry, determinism, and the distributions of the published pipeline."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from pretrain.data.views import ViewKind, ViewsConfig, make_views, sample_crop, view_kinds


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    smallest=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32),
)
def test_crops_lie_inside_the_image(width: int, height: int, smallest: float, seed: int) -> None:
    top, left, crop_height, crop_width = sample_crop(width, height, (smallest, 1.0), np.random.default_rng(seed))
    assert crop_height >= 1
    assert crop_width >= 1
    assert 0 <= top <= height - crop_height
    assert 0 <= left <= width - crop_width


@pytest.mark.parametrize("scale", [(0.25, 1.0), (0.05, 0.25)])
def test_crops_are_distributed_as_torchvisions(scale: tuple[float, float]) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = torch.empty(3, 300, 400)
    ours = np.array([sample_crop(400, 300, scale, rng) for _ in range(4000)])
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(4000)])
    for quantile in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(ours, quantile, axis=0), np.quantile(theirs, quantile, axis=0), atol=8)


def test_the_box_is_where_the_pixels_come_from() -> None:
    """A view without colour changes equals its own box, cut and mirrored by hand."""
    ramp = np.zeros((64, 64, 3), dtype=np.uint8)
    ramp[..., 0] = np.arange(64)[None] * 4
    ramp[..., 1] = np.arange(64)[:, None] * 4
    image = Image.fromarray(ramp)
    kind = ViewKind(16, (0.2, 0.8), blur_probability=0.0, solarize_probability=0.0)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    checked = set()
    for seed in range(200):
        view = make_views(image, [kind], np.random.default_rng(seed))[0]
        red, green, blue = (view.pixels.permute(1, 2, 0) * deviation + mean).permute(2, 0, 1) * 255
        if blue.max() > 0.5:
            continue  # jittered or grey
        box = view.box
        cut = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        expected = np.asarray(cut.resize((16, 16), Image.Resampling.BICUBIC)).astype(float)
        if box.flip:
            expected = expected[:, ::-1]
        if abs(red.numpy() - expected[..., 0]).max() < 1:
            assert abs(green.numpy() - expected[..., 1]).max() < 1
            checked.add(box.flip)
    assert checked == {True, False}


def test_views_depend_on_the_generator_alone() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    kinds = view_kinds(ViewsConfig(global_size=32, local_size=16, local_crops=3))
    first, again, other = (make_views(image, kinds, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert [tuple(view.pixels.shape) for view in first] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 3
    assert all(torch.equal(a.pixels, b.pixels) and a.box == b.box for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, other, strict=True))


def test_blur_and_solarisation_belong_to_the_published_views() -> None:
    kinds = view_kinds(ViewsConfig())
    assert [kind.blur_probability for kind in kinds] == [1.0, 0.1, *[0.5] * 8]
    assert [kind.solarize_probability for kind in kinds] == [0.0, 0.2, *[0.0] * 8]
    assert [kind.scale for kind in kinds] == [(0.25, 1.0)] * 2 + [(0.05, 0.25)] * 8


def test_scales_must_be_ascending() -> None:
    with pytest.raises(ValueError, match="global_scale"):
        ViewsConfig(global_scale=(0.9, 0.3))
