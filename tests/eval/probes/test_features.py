"""Feature maps of frozen backbones: which blocks, which norm, and what cannot be had."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from backbones.build import build_backbone
from backbones.spec import ResNetSpec, SwinSpec, TimmSpec, ViTSpec
from eval.linear_segmentation.protocol import RULES, check_rules
from eval.probes.features import FrozenFeatures, centre_pad, check_input

CPU = torch.device("cpu")


def network(spec: Any) -> Any:
    torch.manual_seed(0)
    built = build_backbone(spec)
    for module in built.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight)
    return built


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_the_last_block_has_the_final_norm(toy_spec: ViTSpec, images: torch.Tensor) -> None:
    backbone = network(toy_spec)
    features = FrozenFeatures(backbone, CPU)
    (found,) = features(images)
    tokens = backbone.forward_tokens(images)
    assert torch.equal(found.flatten(2).transpose(1, 2), tokens.patches)
    assert (found.shape, features.channels, features.multiple) == ((2, 24, 4, 6), [24], 16)
    assert not found.requires_grad
    assert not any(weight.requires_grad for weight in backbone.parameters())
    several = FrozenFeatures(backbone, CPU, blocks=[1, 3])(images)
    torch.testing.assert_close(several[1], found)
    bare = FrozenFeatures(backbone, CPU, blocks=[1, 3], normalised=False)(images)
    assert all(map(torch.equal, bare, backbone.forward_maps(images, [1, 3])))
    torch.testing.assert_close(several[0], backbone.norm(bare[0].movedim(1, 3)).movedim(3, 1))


@pytest.mark.parametrize(
    ("spec", "shape", "multiple"),
    [
        (SwinSpec(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), window_size=4), (2, 64, 2, 3), 32),
        (ResNetSpec(layers=(1, 1, 1, 1)), (2, 2048, 2, 3), 32),
    ],
)
def test_other_families_give_their_last_stage(spec: Any, shape: Any, multiple: int, images: torch.Tensor) -> None:
    features = FrozenFeatures(network(spec), CPU)
    assert (features(images)[0].shape, features.multiple) == (shape, multiple)
    with pytest.raises(ValueError, match=r"layers=\[0\]: a .*'s final norm fits its last map only"):
        FrozenFeatures(network(spec), CPU, blocks=[0])


@pytest.mark.parametrize("blocks", [[4], [1, 0], [1, 1], [-1]])
def test_blocks_that_do_not_exist_are_refused(blocks: list[int], toy_spec: ViTSpec) -> None:
    with pytest.raises(ValueError, match="give ascending numbers of this vit's blocks or stages, 0 to 3"):
        FrozenFeatures(network(toy_spec), CPU, blocks=blocks)


def test_a_network_of_one_size_is_refused_where_the_protocol_has_others(toy_spec: ViTSpec) -> None:
    one_size = TimmSpec(name="mixer_s32_224", channels=(512,), strides=(32,), image_size=224, size_step=0)
    check_input(one_size, 224)
    with pytest.raises(ValueError, match="448 x 448: mixer_s32_224 takes 224 x 224, the only size that it takes"):
        check_input(one_size, 448)
    with pytest.raises(ValueError, match="takes images of 224 x 224 pixels only; this protocol has images of many sizes"):
        check_input(one_size, None)
    for spec in (dataclasses.replace(one_size, size_step=32), toy_spec):
        check_input(spec, None)
        check_input(spec, 448)
    # Whatever `--size` is, the reason is the network's.
    rules = dataclasses.replace(RULES["dinov3"], size=128)
    with pytest.raises(ValueError, match="images of many sizes"):
        check_rules(rules, one_size)


def test_features_that_are_not_finite_are_refused(toy_spec: ViTSpec, images: torch.Tensor) -> None:
    backbone = network(toy_spec)
    nn.init.constant_(backbone.norm.bias, torch.nan)
    with pytest.raises(ValueError, match="features are not finite"):
        FrozenFeatures(backbone, CPU)(images)


def test_autocast_gives_float32_of_lower_precision(toy_spec: ViTSpec, images: torch.Tensor) -> None:
    (exact,) = FrozenFeatures(network(toy_spec), CPU)(images)
    (rounded,) = FrozenFeatures(network(toy_spec), CPU, autocast=torch.bfloat16)(images)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.2, rtol=0)


def test_the_smaller_half_of_the_padding_comes_first() -> None:
    padded = centre_pad(torch.ones(1, 1, 9, 13), 5)
    assert padded.shape == (1, 1, 10, 15)
    assert (padded[0, 0, 9] == 0).all()
    assert (padded[0, 0, :9, 0] == 0).all()
    assert (padded[0, 0, :9, 1:14] == 1).all()
