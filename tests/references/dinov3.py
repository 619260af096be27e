"""DINOv3's ViT written out from its description, on weights under the authors' names.

Rotary positions as plane rotations: channels i and i + d/2 of a head of width d are the two coordinates of a point, which is turned
by 2 pi times the patch's coordinate over a period; the first half of the planes follow the row, the second the column, with the same
periods. A patch's coordinate is its centre's, from -1 to 1 over the image on each axis.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5


def patch_features(weights: dict[str, Tensor], images_B3HW: Tensor, num_heads: int) -> Tensor:
    """Patches [B, N, D] after the final norm."""
    tokens = F.conv2d(
        images_B3HW,
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=weights["patch_embed.proj.weight"].shape[-1],
    )
    batch, _, rows, columns = tokens.shape
    angles = _angles(weights["rope_embed.periods"], rows, columns)
    before = [weights["cls_token"]] + ([weights["storage_tokens"]] if "storage_tokens" in weights else [])
    x = torch.cat([token.expand(batch, -1, -1) for token in before] + [tokens.flatten(2).transpose(1, 2)], dim=1)
    first_patch = x.shape[1] - rows * columns
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for number in range(depth):
        block = {
            name.removeprefix(f"blocks.{number}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"blocks.{number}.")
        }
        x = x + block["ls1.gamma"] * _attention(_norm(x, block, "norm1"), block, num_heads, angles, first_patch)
        x = x + block["ls2.gamma"] * _mlp(_norm(x, block, "norm2"), block)
    return _norm(x, weights, "norm")[:, first_patch:]


def _angles(periods: Tensor, rows: int, columns: int) -> Tensor:
    """[rows * columns, 2 * periods] in radians."""
    angles = torch.empty(rows, columns, 2, len(periods))
    for row in range(rows):
        for column in range(columns):
            angles[row, column, 0] = 2 * math.pi * ((row + 0.5) / rows * 2 - 1) / periods
            angles[row, column, 1] = 2 * math.pi * ((column + 0.5) / columns * 2 - 1) / periods
    return angles.flatten(2).flatten(0, 1)


def _attention(x: Tensor, block: dict[str, Tensor], num_heads: int, angles: Tensor, first_patch: int) -> Tensor:
    joint = x @ block["attn.qkv.weight"].T
    if "attn.qkv.bias" in block:
        joint = joint + torch.where(block["attn.qkv.bias_mask"] > 0, block["attn.qkv.bias"], 0)
    query, key, value = (part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=2))
    query, key = (_turned(part, angles, first_patch) for part in (query, key))
    weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)
    return F.linear((weights @ value).transpose(1, 2).flatten(2), block["attn.proj.weight"], block["attn.proj.bias"])


def _turned(x: Tensor, angles: Tensor, first_patch: int) -> Tensor:
    """Complex numbers times e^(i angle); tokens before the first patch stay."""
    real, imaginary = x[:, :, first_patch:].chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([x[:, :, :first_patch], torch.cat([turned.real, turned.imag], dim=-1)], dim=2)


def _mlp(x: Tensor, block: dict[str, Tensor]) -> Tensor:
    def layer(name: str, x: Tensor) -> Tensor:
        return F.linear(x, block[f"mlp.{name}.weight"], block[f"mlp.{name}.bias"])

    if "mlp.w3.weight" in block:
        return layer("w3", F.silu(layer("w1", x)) * layer("w2", x))
    return layer("fc2", F.gelu(layer("fc1", x)))


def _norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)
