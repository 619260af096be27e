"""Each patch changes by itself, by operations equal to torchvision's."""

import numpy as np
import torch
from torchvision.transforms import functional as F

from pretrain.data import patch_photometric
from pretrain.data.patch_photometric import change_each_patch, shift_hue


def test_hue_is_torchvisions() -> None:
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
    torch.testing.assert_close(patch_photometric._blur(patches, np.random.default_rng(3)), expected, atol=1e-5, rtol=0)


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
    changed = patch_photometric._posterise(patches, np.random.default_rng(0))
    assert 450 < (changed != patches).flatten(1).any(1).sum() < 550
    steps = (changed[(changed != patches).flatten(1).any(1)] * 255).unique()
    assert set(steps.round().int().tolist()) <= set(range(0, 256, 32))
