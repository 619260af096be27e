"""What DINOv2 adds to the ViT: registers, LayerScale, a gated MLP, patches of 14 pixels, antialiased positions."""

import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.convert import convert_content
from backbones.file import load_strictly
from backbones.spec import ViTSpec, spec_from_dict, spec_to_dict
from tests.layouts import DINOV2, REGISTERS, VIT, make_all, weights_of

TOLERANCE = 2e-5


def dinov2_features(weights: dict[str, Tensor], images_B3HW: Tensor, num_heads: int, patch: int) -> Tensor:
    """Patch tokens of DINOv2 after the final norm, from its published names and its published order of steps.

    facebookresearch/dinov2, dinov2/models/vision_transformer.py and dinov2/hub/backbones.py: positions first, registers after; with
    registers, positions resized to a size with antialiasing, else by a scale factor with 0.1 added to the grid.
    """
    tokens = F.conv2d(images_B3HW, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=patch)
    grid, registers = tokens.shape[-2:], weights.get("register_tokens")
    tokens = tokens.flatten(2).transpose(1, 2)
    batch, _, dim = tokens.shape
    positions = weights["pos_embed"]
    side = round((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].reshape(1, side, side, dim).permute(0, 3, 1, 2)
    if grid != (side, side):
        scale = {"size": grid, "antialias": True} if registers is not None else {}
        scale = scale or {"scale_factor": tuple((count + 0.1) / side for count in grid)}
        square = F.interpolate(square, mode="bicubic", **scale)
    positions = torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)
    tokens = torch.cat([weights["cls_token"].expand(batch, -1, -1), tokens], dim=1) + positions
    if registers is not None:
        tokens = torch.cat([tokens[:, :1], registers.expand(batch, -1, -1), tokens[:, 1:]], dim=1)
    for block in range(2):
        at = f"blocks.{block}."
        normed = F.layer_norm(tokens, (dim,), weights[at + "norm1.weight"], weights[at + "norm1.bias"], 1e-6)
        qkv = F.linear(normed, weights[at + "attn.qkv.weight"], weights[at + "attn.qkv.bias"])
        q, k, v = qkv.reshape(batch, -1, 3, num_heads, dim // num_heads).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)) * (dim // num_heads) ** -0.5).softmax(-1) @ v
        mixed = F.linear(mixed.transpose(1, 2).flatten(2), weights[at + "attn.proj.weight"], weights[at + "attn.proj.bias"])
        tokens = tokens + mixed * weights[at + "ls1.gamma"]
        normed = F.layer_norm(tokens, (dim,), weights[at + "norm2.weight"], weights[at + "norm2.bias"], 1e-6)
        if at + "mlp.w12.weight" in weights:
            gate, value = F.linear(normed, weights[at + "mlp.w12.weight"], weights[at + "mlp.w12.bias"]).chunk(2, dim=-1)
            hidden = F.linear(F.silu(gate) * value, weights[at + "mlp.w3.weight"], weights[at + "mlp.w3.bias"])
        else:
            hidden = F.gelu(F.linear(normed, weights[at + "mlp.fc1.weight"], weights[at + "mlp.fc1.bias"]))
            hidden = F.linear(hidden, weights[at + "mlp.fc2.weight"], weights[at + "mlp.fc2.bias"])
        tokens = tokens + hidden * weights[at + "ls2.gamma"]
    tokens = F.layer_norm(tokens, (dim,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    return tokens[:, 1 if registers is None else 1 + registers.shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize("name", ["dinov2", "dinov2_registers"])
@pytest.mark.parametrize("size", [(56, 56), (84, 140), (42, 56)])
def test_dinov2(name: str, size: tuple[int, int]) -> None:
    """The published order of steps, at the stored grid, enlarged and reduced."""
    made = make_all()[name]
    conversion = convert_content(made.checkpoint)
    network = build_backbone(conversion.spec).eval()
    load_strictly(network, conversion.state_dict)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = dinov2_features(made.checkpoint, images, num_heads=1, patch=14)
    found = network.forward_tokens(images)
    torch.testing.assert_close(found.patches, expected, atol=TOLERANCE, rtol=0)
    assert found.grid == (size[0] // 14, size[1] // 14)
    other = dataclasses.replace(
        conversion.spec, position_rule={"dino": "antialias", "antialias": "dino"}[made.spec.position_rule]
    )
    mistaken = build_backbone(other).eval()
    load_strictly(mistaken, conversion.state_dict)
    deviation = (mistaken.forward_tokens(images).patches - expected).abs().max().item()
    assert (deviation > 10 * TOLERANCE) == (size != (56, 56))


@torch.no_grad()
def test_timm_agrees_about_registers() -> None:
    reference = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=64,
        depth=2,
        num_heads=1,
        num_classes=0,
        global_pool="",
        reg_tokens=3,
        no_embed_class=True,
        init_values=1e-5,
        mlp_ratio=2.75,
        mlp_layer=SwiGLUPacked,
        act_layer=nn.SiLU,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        dynamic_img_size=True,
    ).eval()
    weights = weights_of(REGISTERS)
    reference.load_state_dict(weights)
    network = build_backbone(REGISTERS).eval()
    load_strictly(network, weights)
    images = torch.rand(1, 3, 84, 98)
    features = reference.forward_features(images)
    found = network.forward_tokens(images)
    torch.testing.assert_close(found.patches, features[:, 4:], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.cls, features[:, 0], atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("spec", [REGISTERS, dataclasses.replace(REGISTERS, class_token=False)], ids=["with CLS", "without"])
def test_maps_hold_patches_only(spec: ViTSpec) -> None:
    network = build_backbone(spec).eval()
    images = torch.rand(1, 3, 28, 56)
    last = network.forward_maps(images, [0, 1])[1]
    assert last.shape == (1, 64, 2, 4)
    tokens = network.forward_tokens(images)
    assert (tokens.cls is None) == (not spec.class_token)
    normed = F.layer_norm(last.flatten(2).transpose(1, 2), (64,), eps=1e-6)
    torch.testing.assert_close(tokens.patches, normed, atol=TOLERANCE, rtol=0)


def test_older_files_lack_the_new_fields() -> None:
    stored = {key: value for key, value in spec_to_dict(VIT).items() if key not in ("mlp", "layer_scale", "register_tokens")}
    for key in ("class_position", "position_rule"):
        del stored[key]
    assert spec_from_dict(stored) == VIT
    assert spec_from_dict(spec_to_dict(REGISTERS)) == REGISTERS


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mlp": "relu"}, "mlp='relu'; known: gelu, swiglu"),
        ({"position_rule": "nearest"}, "position_rule='nearest'; known: dino, antialias"),
        ({"register_tokens": -1}, "must not be negative"),
        ({"register_tokens": 4}, "class_position=False"),
    ],
)
def test_specs_that_make_no_network(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        spec_from_dict(spec_to_dict(DINOV2) | change)
