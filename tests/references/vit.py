"""Vision transformers written out from their descriptions, to be slow and obvious, on weights under the authors' names.

facebookresearch/dino 7c446df, vision_transformer.py; facebookresearch/dinov2, dinov2/models/vision_transformer.py and
dinov2/hub/backbones.py; facebookresearch/dinov3 6876159a, dinov3/layers/rope_position_encoding.py and attention.py.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def patch_features(weights: Weights, images_B3HW: Tensor, num_heads: int) -> Tensor:
    """Patches [B, N, D] of the last block, after the final norm if there is one."""
    projection = weights["patch_embed.proj.weight"]
    patches = F.conv2d(images_B3HW, projection, weights["patch_embed.proj.bias"], stride=projection.shape[-1])
    batch, _, rows, columns = patches.shape
    tokens = patches.flatten(2).transpose(1, 2)
    registers = weights.get("register_tokens", weights.get("storage_tokens"))
    if "cls_token" in weights:
        tokens = torch.cat([weights["cls_token"].expand(batch, -1, -1), tokens], dim=1)
    angles, epsilon = None, 1e-6
    if "rope_embed.periods" in weights:
        angles, epsilon = _angles(weights["rope_embed.periods"], rows, columns), 1e-5
    else:
        tokens = tokens + positions(weights["pos_embed"], (rows, columns), "cls_token" in weights, registers is not None)
    if registers is not None:
        tokens = torch.cat([tokens[:, :1], registers.expand(batch, -1, -1), tokens[:, 1:]], dim=1)
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for block in (f"blocks.{number}." for number in range(depth)):
        normed = _norm(tokens, weights, f"{block}norm1", epsilon)
        tokens = tokens + weights.get(f"{block}ls1.gamma", 1) * _attention(normed, weights, f"{block}attn.", num_heads, angles)
        normed = _norm(tokens, weights, f"{block}norm2", epsilon)
        tokens = tokens + weights.get(f"{block}ls2.gamma", 1) * _mlp(normed, weights, f"{block}mlp.")
    if "norm.weight" in weights:
        tokens = _norm(tokens, weights, "norm", epsilon)
    return tokens[:, -rows * columns :]


def positions(positions_1ND: Tensor, grid: tuple[int, int], has_cls: bool, has_registers: bool) -> Tensor:
    """Resized to the size with antialiasing where there are registers, else by a scale factor with 0.1 added to the grid."""
    before_1CD, patches_1ND = positions_1ND[:, :has_cls], positions_1ND[:, has_cls:]
    side = round(patches_1ND.shape[1] ** 0.5)
    if grid == (side, side):
        return positions_1ND
    square = patches_1ND.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if has_registers:
        square = F.interpolate(square, mode="bicubic", size=grid, antialias=True)
    else:
        square = F.interpolate(square, mode="bicubic", scale_factor=tuple((count + 0.1) / side for count in grid))
    return torch.cat([before_1CD, square.flatten(2).transpose(1, 2)], dim=1)


def _angles(periods: Tensor, rows: int, columns: int) -> Tensor:
    """Of DINOv3's rotations [rows * columns, 2 * periods] in radians: 2 pi times the patch's coordinate over a period.

    The coordinate is that of the patch's centre, from -1 to 1 over the image on each axis; the first half follows the row.
    """
    angles = torch.empty(rows, columns, 2, len(periods))
    for row in range(rows):
        for column in range(columns):
            angles[row, column, 0] = 2 * math.pi * ((row + 0.5) / rows * 2 - 1) / periods
            angles[row, column, 1] = 2 * math.pi * ((column + 0.5) / columns * 2 - 1) / periods
    return angles.flatten(2).flatten(0, 1)


def _attention(tokens: Tensor, weights: Weights, at: str, num_heads: int, angles: Tensor | None) -> Tensor:
    bias = weights.get(f"{at}qkv.bias")
    if bias is not None and f"{at}qkv.bias_mask" in weights:
        bias = torch.where(weights[f"{at}qkv.bias_mask"] > 0, bias, 0)
    joint = F.linear(tokens, weights[f"{at}qkv.weight"], bias)
    return _linear(attention(joint.chunk(3, dim=2), num_heads, angles), weights, f"{at}proj")


def attention(parts: Sequence[Tensor], num_heads: int, angles: Tensor | None = None) -> Tensor:
    """As a matrix and a softmax; the parts are queries, keys and values [B, N, D]."""
    query, key, value = (part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in parts)
    if angles is not None:
        query, key = _turned(query, angles), _turned(key, angles)
    attention = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)
    return (attention @ value).transpose(1, 2).flatten(2)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Channels i and i + d/2 of a head of width d as complex numbers, times e^(i angle); tokens before the patches stay."""
    first_patch = x.shape[2] - len(angles)
    real, imaginary = x[:, :, first_patch:].chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([x[:, :, :first_patch], torch.cat([turned.real, turned.imag], dim=-1)], dim=2)


def _mlp(tokens: Tensor, weights: Weights, at: str) -> Tensor:
    if f"{at}fc1.weight" in weights:
        return _linear(F.gelu(_linear(tokens, weights, f"{at}fc1")), weights, f"{at}fc2")
    if f"{at}w12.weight" in weights:
        gate, value = _linear(tokens, weights, f"{at}w12").chunk(2, dim=-1)
    else:
        gate, value = _linear(tokens, weights, f"{at}w1"), _linear(tokens, weights, f"{at}w2")
    return _linear(F.silu(gate) * value, weights, f"{at}w3")


def _linear(tokens: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(tokens: Tensor, weights: Weights, name: str, epsilon: float) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)
