"""Each operation gives what Pillow and torchvision give, within a stated number of levels of 255."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from pretrain.data.colours import (
    JITTERS,
    ColourDraws,
    Pixels,
    box_taps,
    change_colours,
    change_each_patch,
    change_patches,
    jitter,
    shift_hue,
)
from tests.references.dino_views import JITTER, pillow_colours


def sample(side: int = 96) -> Pixels:
    """Smooth, with strong colours, black, white, edges and a little noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    coarse[2], coarse[:, 5], coarse[7, 1] = 0, 255, (255, 0, 0)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)


SAMPLE = sample()


def draws(**changes: object) -> ColourDraws:
    """Of one view, in which nothing is drawn but what is given."""
    nothing = ColourDraws(np.zeros(1, bool), np.arange(4)[None], np.array([[1.0, 1.0, 1.0, 0.0]]), *np.zeros((3, 1)))
    return nothing._replace(**{name: np.array(value) for name, value in changes.items()})


def differences(drawn: ColourDraws) -> Pixels:
    return np.abs(change_colours(SAMPLE, drawn, 0).astype(int) - pillow_colours(Image.fromarray(SAMPLE), drawn, 0))


@pytest.mark.parametrize(
    ("operation", "factors", "mean", "largest"),
    [
        ("brightness", (0.6, 0.83, 1.0, 1.17, 1.4), 0.01, 1),
        ("contrast", (0.6, 0.83, 1.0, 1.17, 1.4), 0.01, 1),
        ("saturation", (0.8, 0.93, 1.0, 1.07, 1.2), 0.3, 1),
        ("hue", (-0.1, -0.043, 0.0, 0.05, 0.1), 0.4, 13),
    ],
)
def test_jitter_is_pillows(operation: str, factors: tuple[float, ...], mean: float, largest: int) -> None:
    theirs = JITTER[JITTERS.index(operation)]
    expected = np.stack([np.asarray(theirs(Image.fromarray(SAMPLE), factor)) for factor in factors])
    difference = np.abs(np.stack([jitter(SAMPLE, operation, factor) for factor in factors]).astype(int) - expected)
    assert difference.mean(axis=(1, 2, 3)).max() <= mean
    assert difference.max() <= largest


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.7, 1.1, 1.42, 2.0])
def test_blur_is_pillows(radius: float) -> None:
    """Within 6 pixels of the border, more: see the module. A Gaussian cut off at pixels would not have the radius' variance."""
    difference = differences(draws(radius_V=[radius]))
    assert difference[6:-6, 6:-6].mean() <= 0.6
    assert difference[6:-6, 6:-6].max() <= 3
    assert difference.mean() <= 0.7
    taps = box_taps(radius)
    offsets = np.arange(len(taps)) - len(taps) // 2
    assert taps.sum() == pytest.approx(1)
    assert (taps * offsets**2).sum() == pytest.approx(radius**2, rel=1e-4)


def test_solarisation_and_grey_are_pillows() -> None:
    assert differences(draws(solarise_V=[True])).max() == 0
    assert differences(draws(grey_V=[True])).max() <= 1
    assert np.array_equal(change_colours(SAMPLE, draws(), 0), SAMPLE)


def test_operations_come_in_the_published_order() -> None:
    """Jitter in the drawn order, then grey, blur, solarisation; beside the same steps by Pillow."""
    order = [2, 0, 3, 1]
    drawn = draws(jitter_V=[True], order_V4=[order], factors_V4=[[1.3, 0.7, 1.15, 0.06]], radius_V=[1.3], solarise_V=[True])
    difference = differences(drawn)
    assert np.median(difference) <= 1
    # Solarisation tears levels round 128 apart; other orders differ by far more.
    assert difference.mean() < 1.5
    other = change_colours(SAMPLE, drawn._replace(order_V4=np.array([order[::-1]])), 0)
    assert np.abs(other.astype(int) - pillow_colours(Image.fromarray(SAMPLE), drawn, 0)).mean() > 3


# PW-Self's changes of each patch by itself.


def test_hue_of_a_batch_is_torchvisions() -> None:
    patches, shifts = torch.rand(6, 3, 4, 4), torch.tensor([-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
    expected = torch.stack([F.adjust_hue(patch, shift.item()) for patch, shift in zip(patches, shifts, strict=True)])
    torch.testing.assert_close(shift_hue(patches, shifts), expected, atol=1e-5, rtol=0)
    grey = torch.full((1, 3, 2, 2), 0.3)
    torch.testing.assert_close(shift_hue(grey, torch.tensor([0.1])), grey)


def test_blur_is_torchvisions_with_the_published_kernel() -> None:
    patches = torch.rand(5, 3, 8, 8)
    deviations = np.random.default_rng(3).uniform(0.1, 2.0, 5).tolist()
    expected = torch.stack([F.gaussian_blur(patch, [1, 5], [s, s]) for patch, s in zip(patches, deviations, strict=True)])
    torch.testing.assert_close(change_patches("blur", patches, np.random.default_rng(3)), expected, atol=1e-5, rtol=0)


def test_patches_change_by_themselves() -> None:
    view = torch.rand(3, 16, 24)
    changed = change_each_patch(view, 8, np.random.default_rng(0))
    assert changed.min() >= 0
    assert changed.max() <= 1
    other = view.clone()
    other[:, 8:, 8:16] = torch.rand(3, 8, 8)
    differs = (change_each_patch(other, 8, np.random.default_rng(0)) != changed).any(0)
    assert differs[8:, 8:16].sum() == differs.sum() > 0


def test_half_of_the_patches_are_posterised() -> None:
    patches = torch.rand(1000, 3, 2, 2)
    changed = change_patches("posterisation", patches, np.random.default_rng(0))
    acts = (changed != patches).flatten(1).any(1)
    assert 450 < acts.sum() < 550
    assert set((changed[acts] * 255).unique().round().int().tolist()) <= set(range(0, 256, 32))
