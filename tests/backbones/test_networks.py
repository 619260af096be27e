"""ViTs with what DINOv2 and DINOv3 add to them, against descriptions that are written out and against timm's own."""

import dataclasses
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.build import build_backbone, network_of
from backbones.convert import Selection, convert_content
from backbones.layouts.architecture import with_periods
from backbones.spec import DINOv3Spec, ViTSpec, spec_from_dict, spec_to_dict
from tests.layouts import DINOV2, DINOV3, GATED, REGISTERS, VIT, make_all, weights_of, without_periods
from tests.references.vit import patch_features

MADE = make_all()
TOLERANCE = 2e-5
SIZES = [(64, 64), (48, 112)]
SPECS = {"plain": DINOV3, "gated": GATED}


def images(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))


def timms_own(spec: DINOv3Spec, weights: dict[str, Tensor]) -> Any:
    """timm's published ViT-S (plain with biases, or ViT-S+ without), shrunk to the spec."""
    name = "vit_small_plus_patch16_dinov3" if spec.mlp == "swiglu" else "vit_small_patch16_dinov3_qkvb"
    numbers = {"embed_dim": spec.embed_dim, "depth": spec.depth, "num_heads": spec.num_heads}
    model = timm.create_model(
        name, **numbers, mlp_ratio=spec.hidden_dim / spec.embed_dim, num_reg_tokens=spec.register_tokens, num_classes=0
    )
    model.load_state_dict(without_periods(weights), strict=True)
    return model.eval()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@torch.no_grad()
def test_timms_own_features(spec: DINOv3Spec, size: tuple[int, int]) -> None:
    weights = weights_of(spec)
    ours, theirs = network_of(spec, weights), timms_own(spec, weights)
    expected = theirs.forward_features(images(size))
    tokens = ours.forward_tokens(images(size))
    assert tokens.grid == (size[0] // 16, size[1] // 16)
    assert tokens.cls is not None
    torch.testing.assert_close(tokens.cls, expected[:, 0])
    torch.testing.assert_close(tokens.patches, expected[:, 1 + spec.register_tokens :])
    maps = ours.forward_maps(images(size), [0, 1])
    for found, wanted in zip(maps, theirs.forward_intermediates(images(size), intermediates_only=True), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["dinov3", "dinov3_gated"])
@torch.no_grad()
def test_the_authors_layout_against_the_description(name: str, size: tuple[int, int]) -> None:
    """Hidden bias of the keys, rounded periods, gate and value, registers, coordinates of rows and columns."""
    conversion = convert_content(MADE[name].checkpoint)
    network = network_of(conversion.spec, conversion.state_dict)
    expected = patch_features(MADE[name].checkpoint, images(size), conversion.spec.num_heads)  # type: ignore[arg-type]
    torch.testing.assert_close(network.forward_tokens(images(size)).patches, expected, atol=TOLERANCE, rtol=1e-5)


def test_specs_and_sizes_that_do_not_fit_are_refused() -> None:
    network = build_backbone(DINOV3)
    with pytest.raises(ValueError, match="image size 64 x 72 is not a multiple of the patch size 16"):
        network.forward_tokens(torch.zeros(1, 3, 64, 72))
    with pytest.raises(ValueError, match="taps"):
        network.forward_maps(torch.zeros(1, 3, 64, 64), [2])
    with pytest.raises(ValueError, match="multiples of 4"):
        dataclasses.replace(DINOV3, num_heads=64)
    assert spec_from_dict(spec_to_dict(GATED)) == GATED


def test_heads_follow_from_stored_periods_or_the_published_model_of_the_width() -> None:
    with pytest.raises(ValueError, match="--num-heads 4 contradicts the rotary periods, which are those of 2 heads"):
        convert_content(MADE["dinov3"].checkpoint, Selection(num_heads=4))
    assert convert_content(MADE["timm_dinov3"].checkpoint, Selection(num_heads=4)).spec.num_heads == 4  # type: ignore[union-attr]
    # What weights do not show, and nobody has published of this width, is assumed.
    assert [convert_content(MADE[name].checkpoint).heads_assumed for name in ("dinov3", "timm_dinov3")] == [False, True]
    # The width of the largest model, 4096, would otherwise give 64 heads of 64 channels.
    weights = {"patch_embed.proj.weight": torch.zeros(4096, 1, 1, 1)}
    assert len(with_periods(weights, None)["rope.periods"]) * 4 * 32 == 4096
    # An empty patch projection gave a traceback.
    with pytest.raises(ValueError, match="0 heads do not divide a width of 0"):
        convert_content({**MADE["timm_dinov3"].checkpoint, "patch_embed.proj.weight": torch.zeros(0, 3, 16, 16)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.attn.qkv.bias_mask": torch.ones(384)}, r"bias_mask must be one for queries and values and zero for keys"),
        ({"blocks.1.attn.qkv.bias_mask": torch.full((384,), torch.nan)}, r"bias_mask must be one for"),
        ({"blocks.1.attn.qkv.bias_mask": None}, r"bias and its mask .* are missing or do not fit"),
        ({"blocks.1.attn.qkv.bias": None}, r"bias and its mask .* are missing or do not fit"),
        ({"rope_embed.periods": torch.ones(16)}, "periods must be positive and ascending"),
        ({"rope_embed.periods": torch.arange(1.0, 100)}, "99 rotary periods do not fit a width of 128"),
        ({"cls_norm.weight": torch.ones(128)}, "no rule of the layout covers: cls_norm.weight"),
        ({"storage_tokens": torch.ones(3)}, "not the weights of a DINOv3"),
    ],
)
def test_damaged_files_are_refused(change: dict[str, Tensor | None], message: str) -> None:
    checkpoint = {name: tensor for name, tensor in {**MADE["dinov3"].checkpoint, **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        convert_content(checkpoint)


@torch.no_grad()
@pytest.mark.parametrize("name", ["dinov2", "dinov2_registers"])
@pytest.mark.parametrize("size", [(56, 56), (84, 140), (42, 56)])
def test_dinov2(name: str, size: tuple[int, int]) -> None:
    """The published order of steps, at the stored grid, enlarged and reduced."""
    made = MADE[name]
    conversion = convert_content(made.checkpoint)
    network = network_of(conversion.spec, conversion.state_dict)
    pixels = images(size)
    expected = patch_features(made.checkpoint, pixels, num_heads=1)
    found = network.forward_tokens(pixels)
    torch.testing.assert_close(found.patches, expected, atol=TOLERANCE, rtol=0)
    assert found.grid == (size[0] // 14, size[1] // 14)
    other_rule = "antialias" if name == "dinov2" else "dino"
    mistaken = network_of(dataclasses.replace(conversion.spec, position_rule=other_rule), conversion.state_dict)
    deviation = (mistaken.forward_tokens(pixels).patches - expected).abs().max().item()
    assert (deviation > 10 * TOLERANCE) == (size != (56, 56))


@torch.no_grad()
@pytest.mark.parametrize("spec", [REGISTERS, dataclasses.replace(REGISTERS, class_token=False)], ids=["with CLS", "without"])
def test_maps_hold_patches_only(spec: ViTSpec) -> None:
    network = build_backbone(spec).eval()
    pixels = images((28, 56))
    last = network.forward_maps(pixels, [0, 1])[1]
    assert last.shape == (2, 64, 2, 4)
    tokens = network.forward_tokens(pixels)
    assert (tokens.cls is None) == (not spec.class_token)
    normed = F.layer_norm(last.flatten(2).transpose(1, 2), (64,), eps=1e-6)
    torch.testing.assert_close(tokens.patches, normed, atol=TOLERANCE, rtol=0)


def test_older_files_lack_the_new_fields() -> None:
    new = ("mlp", "layer_scale", "register_tokens", "class_position", "position_rule")
    stored = {key: value for key, value in spec_to_dict(VIT).items() if key not in new}
    assert spec_from_dict(stored) == VIT
    assert spec_from_dict(spec_to_dict(REGISTERS)) == REGISTERS


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mlp": "relu"}, "mlp='relu'; known: gelu, swiglu"),
        ({"position_rule": "nearest"}, "position_rule='nearest'; known: dino, antialias"),
        ({"register_tokens": -1}, "must not be negative"),
        ({"register_tokens": 4}, "class_position=False"),
        ({"depth": 2.0}, "depth=2.0 must be an integer"),
        ({"num_heads": True}, "num_heads=True must be an integer"),
        ({"depth": 10**9}, "depth=1000000000 is beyond every known network; at most 100"),
        ({"embed_dim": 10**4000}, r"embed_dim=10+ \.\.\. 0+ is beyond every known network"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio=inf must be a number"),
        ({"image_size": {"a": [1]}}, "image_size=something of type dict must be an integer"),
        ({"class_token": "no"}, "class_token='no' must be true or false"),
        ({"family": "swin"}, "not a swin spec"),
        ({"family": [1]}, r"unknown backbone family \(1,\)"),
    ],
)
def test_specs_that_make_no_network(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        spec_from_dict(spec_to_dict(DINOV2) | change)
