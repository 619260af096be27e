"""A plain state dict with timm's names: timm itself, torchvision's ResNets, DINO's released backbones.

Bare, or under `state_dict` or `model`. Classifiers (`head.`, `fc.`) are dropped.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones.formats.base import Conversion, FormatError, count_numbered, is_state_dict, stated_epoch, take, vit_spec
from backbones.spec import BackboneSpec, ResNetSpec, SwinSpec

NAME = "timm"
BRANCHES = ("model",)
LICENCE = "not stated"  # many sources share these names
_CLASSIFIERS = ("head.", "fc.")
# Some files store these buffers, which follow from the architecture.
SWIN_BUFFERS = ("relative_position_index", "attn_mask")


def matches(checkpoint: Any) -> bool:
    """Whether the names are those of one of the three families, without any prefix."""
    names = _state_dict(checkpoint)
    return (
        {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(names)
        or {"patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"} <= set(names)
        or {"conv1.weight", "layer1.0.conv3.weight"} <= set(names)
    )


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    full = _state_dict(checkpoint)
    buffers = swin_buffers(full)
    state_dict, dropped = take({name: full[name] for name in full if name not in buffers}, "", _CLASSIFIERS)
    spec = _spec(state_dict, num_heads, buffers)
    if isinstance(spec, ResNetSpec):
        state_dict = _with_batch_counters(state_dict)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=spec,
        state_dict=state_dict,
        dropped=dropped | drop_buffers(buffers),
        epoch=stated_epoch(checkpoint) if "epoch" in checkpoint and not is_state_dict(checkpoint) else -1,
    )


def _state_dict(checkpoint: Any) -> Mapping[str, Tensor]:
    if isinstance(checkpoint, Mapping):
        for candidate in (checkpoint, checkpoint.get("state_dict"), checkpoint.get("model")):
            if is_state_dict(candidate):
                return candidate
    return {}


def _spec(state_dict: Mapping[str, Tensor], num_heads: int | None, buffers: Mapping[str, Tensor]) -> BackboneSpec:
    if "pos_embed" in state_dict:
        return vit_spec(state_dict, num_heads)
    if num_heads is not None:
        raise FormatError("--num-heads applies to ViTs only; the weights of this family show their heads")
    if "conv1.weight" in state_dict:
        return ResNetSpec(layers=tuple(count_numbered(state_dict, f"layer{stage}.") for stage in (1, 2, 3, 4)))
    return swin_spec(state_dict, buffers)


def swin_buffers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are no weights."""
    return {name: tensor for name, tensor in state_dict.items() if name.endswith(SWIN_BUFFERS)}


def drop_buffers(buffers: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """`swin_buffers` as an entry of `Conversion.dropped` for each kind."""
    names = {f"*.{kind}": tuple(name for name in buffers if name.endswith(kind)) for kind in SWIN_BUFFERS}
    return {rule: found for rule, found in names.items() if found}


def swin_spec(state_dict: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> SwinSpec:
    """Read a Swin transformer's numbers off its weights; the bias tables show windows and heads.

    Args:
        state_dict: The weights.
        buffers: From `swin_buffers`. A shifted block's mask has an entry per window of the pretraining images and so shows their
            size; where no mask is stored, it is 224.
    """
    stages = range(count_numbered(state_dict, "layers."))
    tables = [state_dict[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
    # A window of side s has (2s-1)^2 relative positions.
    window_size = (round(tables[0].shape[0] ** 0.5) + 1) // 2
    return SwinSpec(
        embed_dim=embed_dim,
        depths=tuple(count_numbered(state_dict, f"layers.{stage}.blocks.") for stage in stages),
        num_heads=tuple(table.shape[1] for table in tables),
        window_size=window_size,
        patch_size=patch_size,
        image_size=_pretraining_size(buffers, window_size * patch_size) or SwinSpec.image_size,
    )


def _pretraining_size(buffers: Mapping[str, Tensor], window_pixels: int) -> int | None:
    """Side in pixels of the images that a Swin was trained on, from the first mask; None where there is none."""
    for name, mask in buffers.items():
        if match := re.search(r"layers\.(\d+)\..*attn_mask$", name):
            return round(mask.shape[0] ** 0.5) * window_pixels * 2 ** int(match[1])
    return None


def _with_batch_counters(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters of BatchNorm that old torchvision files lack; with a fixed momentum they change no feature."""
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for name in state_dict
        if name.endswith("running_mean")
    }
    return {**counters, **state_dict}
