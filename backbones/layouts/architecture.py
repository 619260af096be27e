"""From weights under timm's names to the numbers of their architecture, for ViTs, Swins and ResNets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backbones.layouts.keys import (
    RESNET_KEYS,
    SWIN_KEYS,
    VIT_KEYS,
    FormatError,
    KeyTable,
    abbreviate,
    apply_table,
    count_numbered,
    prefixed,
)
from backbones.spec import BackboneSpec, MLPKind, ResNetSpec, SwinSpec, ViTSpec, standard_num_heads

if TYPE_CHECKING:
    from torch import Tensor

_SMALL_WIDTH = 384


def take_backbone(
    state_dict: Mapping[str, Tensor], prefix: str, drops: KeyTable, num_heads: int | None
) -> tuple[BackboneSpec, dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Take a backbone that has its family's own names behind a prefix.

    Args:
        state_dict: The branch, or the whole network.
        prefix: What stands before each of the backbone's names; may be empty.
        drops: What else the layout holds, with None as targets; looked at first.
        num_heads: Attention heads per block of a ViT; None for the usual 64 channels per head.

    Returns:
        The spec, the weights under timm's names, and the dropped names by rule.

    Raises:
        FormatError: If a name is neither the family's nor dropped, or the weights are of no known family.
        ValueError: If the number of heads is needed and not given.
    """
    names = {name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)}
    if "layer1.0.conv1.weight" in names:
        weights, dropped = apply_table(state_dict, {**drops, **prefixed(prefix, RESNET_KEYS)})
        refuse_num_heads(num_heads)
        return resnet_spec(weights), with_batch_counters(weights), dropped
    if any(name.startswith("layers.0.blocks.") for name in names):
        weights, dropped = apply_table(state_dict, {**drops, **prefixed(prefix, SWIN_KEYS)})
        refuse_num_heads(num_heads)
        masks = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix) and name.endswith("attn_mask")}
        weights = _downsampling_first(weights)
        return swin_spec(weights, masks), weights, dropped
    weights, dropped = apply_table(state_dict, {**drops, **prefixed(prefix, VIT_KEYS)})
    return vit_spec(weights, num_heads), weights, dropped


def refuse_num_heads(num_heads: int | None) -> None:
    """Raise FormatError if heads are chosen where they cannot be."""
    if num_heads is not None:
        raise FormatError("--num-heads applies to ViTs only; the weights of this family show their heads")


def check_is_whole(weights: Mapping[str, Tensor], expectation: str) -> None:
    """Raise FormatError with what the layout's ViTs have, in its own names, if the CLS token or the final norm is missing."""
    if "cls_token" not in weights or "norm.weight" not in weights:
        raise FormatError(f"incomplete checkpoint, {expectation}")


def vit_spec(state_dict: Mapping[str, Tensor], num_heads: int | None) -> ViTSpec:
    """Read a ViT's numbers off its weights (timm's names).

    Positions are resampled by DINO's rule, which the published evaluations share, whatever the layout; with register tokens by that
    of DINOv2's models with registers, which is also timm's.

    Args:
        state_dict: The backbone's weights.
        num_heads: Heads per block, which the weights do not show; None for the usual 64 channels per head.

    Raises:
        FormatError: If the weights are not a ViT's.
        ValueError: If the number of heads is needed and not given.
    """
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        hidden, _ = state_dict["blocks.0.mlp.fc1.weight"].shape
        _, values = state_dict["blocks.0.mlp.fc2.weight"].shape
        _, positions, _ = state_dict["pos_embed"].shape
        registers = state_dict["reg_token"].shape[1] if "reg_token" in state_dict else 0
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(f"not the weights of a ViT ({error}); the names are {abbreviate(state_dict)}") from error
    class_token = "cls_token" in state_dict
    class_position = class_token and math.isqrt(max(positions - 1, 0)) ** 2 == positions - 1
    grid_side = math.isqrt(positions - class_position)
    if grid_side**2 != positions - class_position:
        raise FormatError(f"pos_embed covers {positions} patches, which is not a square grid")
    if num_heads is None and embed_dim == _SMALL_WIDTH and class_position and not state_dict["pos_embed"][:, 0].any():
        raise FormatError(
            "the CLS token's position is zero: fixed sine-cosine positions, as of MoCo-v3's ViT-S, which has 12 heads where every "
            "other ViT-S has 6; say which with --num-heads"
        )
    mlp: MLPKind = "swiglu" if values * 2 == hidden else "gelu"
    return ViTSpec(
        embed_dim=embed_dim,
        depth=count_numbered(state_dict, "blocks."),
        num_heads=num_heads or standard_num_heads(embed_dim),
        patch_size=patch_size,
        image_size=grid_side * patch_size,
        class_token=class_token,
        final_norm="norm.weight" in state_dict,
        mlp_ratio=_ratio(hidden, embed_dim),
        mlp=mlp,
        layer_scale="blocks.0.ls1.gamma" in state_dict,
        register_tokens=registers,
        class_position=class_position or not class_token,
        position_rule="antialias" if registers else "dino",
    )


def _ratio(hidden: int, embed_dim: int) -> float:
    """The smallest float near hidden / embed_dim that gives `hidden` back when timm multiplies and truncates."""
    ratio = hidden / max(embed_dim, 1)
    return ratio if int(embed_dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def resnet_spec(state_dict: Mapping[str, Tensor]) -> ResNetSpec:
    """Read a ResNet's numbers of blocks off its weights (torchvision's names)."""
    return ResNetSpec(layers=tuple(count_numbered(state_dict, f"layer{stage}.") for stage in (1, 2, 3, 4)))


def with_batch_counters(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters of BatchNorm that older files lack; with a fixed momentum they change no feature."""
    import torch

    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for name in state_dict
        if name.endswith("running_mean")
    }
    return {**counters, **state_dict}


def _downsampling_first(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move each downsampling from the end of its stage to the beginning of the next, where timm >= 0.9 has it."""
    if not any(name.startswith("layers.0.downsample.") for name in state_dict):
        return dict(state_dict)

    def renamed(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", renamed, name): tensor for name, tensor in state_dict.items()}


def swin_spec(state_dict: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> SwinSpec:
    """Read a Swin transformer's numbers off its weights; the bias tables show windows and heads.

    Args:
        state_dict: Weights under timm's names.
        masks: The `attn_mask` buffers, where stored. A shifted block's mask has an entry for each window of the pretraining images
            and so shows their size; where no mask is stored, it is 224.

    Raises:
        FormatError: If the weights are not a Swin's.
    """
    stages = range(count_numbered(state_dict, "layers."))
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        tables = [tuple(state_dict[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"].shape) for stage in stages]
        num_heads = tuple(heads for _, heads in tables)
    except (KeyError, ValueError) as error:
        raise FormatError(f"not the weights of a Swin ({error}); the names are {abbreviate(state_dict)}") from error
    # A window of side s has (2s-1)^2 relative positions.
    window_size = (round(tables[0][0] ** 0.5) + 1) // 2
    return SwinSpec(
        embed_dim=embed_dim,
        depths=tuple(count_numbered(state_dict, f"layers.{stage}.blocks.") for stage in stages),
        num_heads=num_heads,
        window_size=window_size,
        patch_size=patch_size,
        image_size=_pretraining_size(masks, window_size, patch_size, len(tables)) or SwinSpec.image_size,
    )


def _pretraining_size(masks: Mapping[str, Tensor], window_size: int, patch_size: int, num_stages: int) -> int | None:
    """Side in pixels of the images that a Swin was trained on, from the first mask; None where there is none."""
    for name, mask in masks.items():
        match = re.search(r"layers\.(\d+)\.blocks\.\d+\.attn_mask$", name)
        stage = int(match[1]) if match else num_stages
        windows = math.isqrt(mask.shape[0]) if mask.ndim == 3 else 0
        if stage >= num_stages or mask.shape != (windows**2, window_size**2, window_size**2):
            raise FormatError(f"{name} of shape {tuple(mask.shape)} is not a mask for windows of side {window_size}")
        return windows * window_size * patch_size * 2**stage
    return None
