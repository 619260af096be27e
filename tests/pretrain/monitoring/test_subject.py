"""What a network shows: attention with whose weights it computes, components along known directions; and looking leaves no trace."""

import contextlib

import pytest
import torch
from torch import nn

from backbones.build import build_backbone
from backbones.spec import SwinSpec, ViTSpec
from backbones.vit import ViT
from pretrain.monitoring.plots import Subject, image_attention, principal_colours, undisturbed
from pretrain.objectives.selfpatch import Aggregation

SPEC = ViTSpec(
    embed_dim=24, depth=2, num_heads=3, patch_size=8, image_size=32, class_token=True, final_norm=True, register_tokens=2,
    class_position=False,
)  # fmt: skip
HEADS = ["mean of heads", "head 1", "head 2", "head 3"]


def randomised(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(0)
    network = randomised(build_backbone(SPEC))
    assert isinstance(network, ViT)
    return network


@torch.no_grad()
def test_cls_attention_is_what_the_block_uses(vit: ViT) -> None:
    attention, seen = vit.blocks[-1].attn, []
    attention.register_forward_hook(lambda module, arguments, output: seen.append((arguments[0], output)))
    maps, _, heads = image_attention(Subject(vit), torch.randn(2, 3, 32, 48))
    assert heads == HEADS
    assert maps.shape == (2, 4, 4, 6)
    torch.testing.assert_close(maps[:, 0], maps[:, 1:].mean(1))
    tokens, output = seen[0]
    query, key, values = attention.qkv(tokens).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    all_weights = (query[:, :, :1] * 8**-0.5 @ key.transpose(-2, -1)).softmax(-1)
    # What the CLS token gets from the patches; the rest comes from the prefix, whose weights are not drawn.
    all_weights[:, :, 0, vit.num_prefix_tokens :] = maps[:, 1:].flatten(2)
    torch.testing.assert_close(attention.proj((all_weights @ values)[:, :, 0].flatten(1)), output[:, 0])


@torch.no_grad()
def test_aggregation_attention_is_what_the_module_uses(vit: ViT) -> None:
    aggregation = randomised(Aggregation(dim=24, num_heads=3))
    assert isinstance(aggregation, Aggregation)
    images = torch.randn(2, 3, 24, 24)
    maps, what, heads = image_attention(Subject(vit, aggregation), images)
    assert "SelfPatch" in what
    assert heads == HEADS
    patches, weights = vit.forward_tokens(images).patches, maps[:, 1:].flatten(2)
    cls = aggregation.blocks[0](aggregation.cls_token.expand(2, 1, -1), patches, None)
    last = aggregation.blocks[1]
    tokens = last.norm1(torch.cat([cls, patches], dim=1))
    values = last.value(tokens).unflatten(2, (3, 8)).transpose(1, 2)
    all_weights = torch.cat([1 - weights.sum(-1, keepdim=True), weights], dim=-1)
    attended = (all_weights[:, :, None] @ values)[:, :, 0].flatten(1)
    cls = cls + last.projection(attended)[:, None]
    expected = aggregation.norm(cls + last.mlp(last.norm2(cls)))[:, 0]
    torch.testing.assert_close(aggregation(patches)[:, 0], expected)


@torch.no_grad()
def test_without_a_cls_token_each_position_is_compared_with_the_mean() -> None:
    swin = build_backbone(SwinSpec(embed_dim=12, depths=(1, 1), num_heads=(2, 2), window_size=4, image_size=32)).eval()
    images = torch.randn(2, 3, 64, 64)
    cosines, what, _ = image_attention(Subject(swin), images)
    assert "no CLS token" in what
    patches = nn.functional.normalize(swin.forward_tokens(images).patches, dim=-1)
    mean = nn.functional.normalize(swin.forward_tokens(images).patches.mean(1), dim=-1)
    torch.testing.assert_close(cosines, (patches @ mean[..., None]).view(2, 1, 8, 8))


# Principal components.


def test_three_known_directions() -> None:
    """Patches that lie on three axes of falling length, hidden by a rotation."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 50, 3, generator=generator).sub(0.5) * torch.tensor([9.0, 3.0, 1.0])
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    colours, explained = principal_colours(scores @ rotation[:3] + 5.0)
    assert explained == pytest.approx(1)
    assert colours.shape == (2, 50, 3)
    correlations = torch.corrcoef(torch.cat([colours.flatten(0, 1), scores.flatten(0, 1)], dim=1).T)
    assert (correlations[:3, 3:].diag().abs() > 0.95).all()
    assert (colours.amin(), colours.amax()) == (0, 1)


def test_colours_are_joint_over_images_and_hold_a_part_of_the_variance() -> None:
    """An image of its own kind has its own colour throughout."""
    patches = torch.randn(2, 30, 6) * 0.01
    patches[1] += 4.0
    red = principal_colours(patches)[0][..., 0]
    assert (red[0] < 0.1).all() != (red[1] < 0.1).all()
    assert (red - red.mean(1, keepdim=True)).abs().max() < 0.1
    even = torch.cat([torch.eye(6), -torch.eye(6)])[None]
    assert principal_colours(even)[1] == pytest.approx(0.5), "three of six components of one length"


def test_the_sign_of_a_direction_is_fixed() -> None:
    patches = torch.randn(1, 40, 5)
    patches[..., 2] *= 10
    red = principal_colours(patches)[0][0, :, 0]
    assert torch.corrcoef(torch.stack([red, patches[0, :, 2]]))[0, 1] > 0.9, "it points along its largest loading"


def test_collapsed_features_have_one_colour() -> None:
    colours, explained = principal_colours(torch.ones(2, 9, 4))
    assert explained == 1
    assert torch.isfinite(colours).all()
    assert len(colours.flatten(0, 1).unique(dim=0)) == 1


def test_modes_are_restored_even_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    network[1].eval()  # a part that is not in training mode stays so
    with contextlib.suppress(OSError), undisturbed(network):
        assert not any(module.training for module in network.modules())
        assert not network(torch.rand(3, 2)).requires_grad
        raise OSError
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert torch.is_grad_enabled()
