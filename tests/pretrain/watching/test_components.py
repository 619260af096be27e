import pytest
import torch

from pretrain.watching.components import principal_colours


def test_three_known_directions() -> None:
    """Patches that lie on three axes of falling length, hidden by a rotation."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 50, 3, generator=generator).sub(0.5) * torch.tensor([9.0, 3.0, 1.0])
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    colours, explained = principal_colours(scores @ rotation[:3] + 5.0)
    assert explained == pytest.approx(1)
    assert colours.shape == (2, 50, 3)
    for channel in range(3):
        correlation = torch.corrcoef(torch.stack([colours[..., channel].flatten(), scores[..., channel].flatten()]))[0, 1]
        assert abs(float(correlation)) > 0.95
    assert colours.amin() == 0
    assert colours.amax() == 1


def test_colours_are_joint_over_images() -> None:
    """An image of its own kind has its own colour throughout."""
    patches = torch.randn(2, 30, 6) * 0.01
    patches[1] += 4.0
    red = principal_colours(patches).colours_BN3[..., 0]
    assert (red[0] < 0.1).all() != (red[1] < 0.1).all()
    assert (red - red.mean(1, keepdim=True)).abs().max() < 0.1


def test_the_sign_of_a_direction_is_fixed() -> None:
    patches = torch.randn(1, 40, 5)
    patches[..., 2] *= 10
    red = principal_colours(patches).colours_BN3[0, :, 0]
    assert torch.corrcoef(torch.stack([red, patches[0, :, 2]]))[0, 1] > 0.9, "it points along its largest loading"


def test_collapsed_features_have_one_colour() -> None:
    colours, explained = principal_colours(torch.ones(2, 9, 4))
    assert explained == 1
    assert torch.isfinite(colours).all()
    assert len(colours.flatten(0, 1).unique(dim=0)) == 1


def test_fewer_channels_than_colours() -> None:
    assert principal_colours(torch.randn(1, 9, 2)).colours_BN3.shape == (1, 9, 3)
