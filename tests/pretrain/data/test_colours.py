"""Each operation gives what Pillow and torchvision give, within a stated number of levels of 255."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F

from pretrain.data.colours import (
    ColourDraws,
    Pixels,
    blur,
    blur_patches,
    box_taps,
    change_brightness,
    change_colours,
    change_contrast,
    change_each_patch,
    change_hue,
    change_saturation,
    posterise_patches,
    shift_hue,
)

Reference = Callable[[Image.Image, float], Image.Image]


def sample(side: int = 96) -> Pixels:
    """Smooth, with strong colours, black, white, edges and a little noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    coarse[2], coarse[:, 5], coarse[7, 1] = 0, 255, (255, 0, 0)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)


def differences(ours: Pixels, theirs: Image.Image) -> Pixels:
    return np.abs(ours.astype(int) - np.asarray(theirs))


@pytest.mark.parametrize(
    ("ours", "theirs", "factors", "mean", "largest"),
    [
        (change_brightness, F.adjust_brightness, (0.6, 0.83, 1.0, 1.17, 1.4), 0.01, 1),
        (change_contrast, F.adjust_contrast, (0.6, 0.83, 1.0, 1.17, 1.4), 0.01, 1),
        (change_saturation, F.adjust_saturation, (0.8, 0.93, 1.0, 1.07, 1.2), 0.3, 1),
        (change_hue, F.adjust_hue, (-0.1, -0.043, 0.0, 0.05, 0.1), 0.4, 13),
    ],
)
def test_jitter_is_pillows(
    ours: Callable[[Pixels, float], Pixels], theirs: Reference, factors: tuple[float, ...], mean: float, largest: int
) -> None:
    pixels = sample()
    for factor in factors:
        difference = differences(ours(pixels, factor), theirs(Image.fromarray(pixels), factor))
        assert difference.mean() <= mean
        assert difference.max() <= largest


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.7, 1.1, 1.5, 2.0])
def test_blur_is_pillows(radius: float) -> None:
    """Within 6 pixels of the border, more: see the module."""
    pixels = sample()
    difference = differences(blur(pixels, radius), Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    assert difference[6:-6, 6:-6].mean() <= 0.6
    assert difference[6:-6, 6:-6].max() <= 3
    assert difference.mean() <= 0.7


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 1.4, 1.42, 2.0])
def test_blur_has_the_variance_of_its_radius(radius: float) -> None:
    """Which a Gaussian cut off at pixels has not: 0.008 instead of 0.09 for a radius of 0.3."""
    taps = box_taps(radius)
    offsets = np.arange(len(taps)) - len(taps) // 2
    assert taps.sum() == pytest.approx(1)
    assert (taps * offsets**2).sum() == pytest.approx(radius**2, rel=1e-4)


def test_solarisation_and_grey_are_pillows() -> None:
    pixels = sample()
    assert np.array_equal(
        change_colours(pixels, draws(solarise_V=[True]), 0), np.asarray(ImageOps.solarize(Image.fromarray(pixels)))
    )
    grey = change_colours(pixels, draws(grey_V=[True]), 0)
    assert differences(grey, F.to_grayscale(Image.fromarray(pixels), 3)).max() <= 1


def draws(**changes: object) -> ColourDraws:
    """Of one view, in which nothing is drawn but what is given."""
    nothing = ColourDraws(
        np.array([False]), np.array([[0, 1, 2, 3]]), np.array([[1.0, 1.0, 1.0, 0.0]]), *(np.zeros(1) for _ in range(3))
    )
    return nothing._replace(**{name: np.array(value) for name, value in changes.items()})


def test_operations_come_in_the_published_order() -> None:
    """Jitter in the drawn order, then grey, blur, solarisation; beside the same steps by Pillow."""
    pixels = sample()
    order, factors, radius = [2, 0, 3, 1], [1.3, 0.7, 1.15, 0.06], 1.3
    drawn = draws(jitter_V=[True], order_V4=[order], factors_V4=[factors], radius_V=[radius], solarise_V=[True])
    expected = Image.fromarray(pixels)
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for operation in order:
        expected = steps[operation](expected, factors[operation])
    expected = ImageOps.solarize(expected.filter(ImageFilter.GaussianBlur(radius)))
    difference = differences(change_colours(pixels, drawn, 0), expected)
    assert np.median(difference) <= 1
    # Solarisation tears levels round 128 apart; other orders differ by far more.
    assert difference.mean() < 1.5
    other = change_colours(pixels, drawn._replace(order_V4=np.array([order[::-1]])), 0)
    assert differences(other, expected).mean() > 3


def test_without_draws_nothing_changes() -> None:
    assert np.array_equal(change_colours(sample(), draws(), 0), sample())


# PW-Self's changes of each patch by itself.


def test_hue_of_a_batch_is_torchvisions() -> None:
    patches, shifts = torch.rand(6, 3, 4, 4), torch.tensor([-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
    expected = torch.stack([F.adjust_hue(patch, shift.item()) for patch, shift in zip(patches, shifts, strict=True)])
    torch.testing.assert_close(shift_hue(patches, shifts), expected, atol=1e-5, rtol=0)
    grey = torch.full((1, 3, 2, 2), 0.3)
    torch.testing.assert_close(shift_hue(grey, torch.tensor([0.1])), grey)


def test_blur_is_torchvisions_with_the_published_kernel() -> None:
    patches = torch.rand(5, 3, 8, 8)
    deviations = np.random.default_rng(3).uniform(0.1, 2.0, 5)
    expected = torch.stack(
        [F.gaussian_blur(patch, [1, 5], [s, s]) for patch, s in zip(patches, deviations.tolist(), strict=True)]
    )
    torch.testing.assert_close(blur_patches(patches, np.random.default_rng(3)), expected, atol=1e-5, rtol=0)


def test_patches_change_by_themselves() -> None:
    view = torch.rand(3, 16, 24)
    changed = change_each_patch(view, 8, np.random.default_rng(0))
    assert changed.shape == view.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    other = view.clone()
    other[:, 8:, 8:16] = torch.rand(3, 8, 8)
    differs = (change_each_patch(other, 8, np.random.default_rng(0)) != changed).any(0)
    assert differs[8:, 8:16].any()
    differs[8:, 8:16] = False
    assert not differs.any()


def test_half_of_the_patches_are_posterised() -> None:
    patches = torch.rand(1000, 3, 2, 2)
    changed = posterise_patches(patches, np.random.default_rng(0))
    assert 450 < (changed != patches).flatten(1).any(1).sum() < 550
    steps = (changed[(changed != patches).flatten(1).any(1)] * 255).unique()
    assert set(steps.round().int().tolist()) <= set(range(0, 256, 32))
