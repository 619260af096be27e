"""DINOv2's ViT written out, on weights under the authors' names."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
