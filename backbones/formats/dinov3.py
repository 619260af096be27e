"""DINOv3's ViTs (facebookresearch/dinov3 6876159a, dinov3/models/vision_transformer.py and dinov3/train/train.py).

The released backbones are bare state dicts; `teacher_checkpoint.pth` of a training run is `{teacher}` with `backbone.`, `dino_head.`
and `ibot_head.`. Registers are `storage_tokens`. Keys have no bias: the joint bias of queries, keys and values comes with a
`bias_mask` of ones, and of zeros for the keys. The stored rotary periods show the heads and are taken as they are.

A LayerNorm epsilon is not stored: it is 1e-5, that of all released models (`layernormbf16`; the configuration's own default is
1e-6).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones.dinov3 import PERIODS, computed_periods
from backbones.formats.base import Conversion, FormatError, abbreviate, count_numbered, weights_under
from backbones.formats.keys import KeyTable, apply_table, dropped, prefixed
from backbones.spec import DINOv3Spec, MLPKind, standard_num_heads

NAME = "dinov3"
TYPICAL = "rope_embed.periods"
BRANCHES = ("teacher",)
LICENCE = "DINOv3 License"  # of the authors' repository
# Heads that are not 64 channels wide: the 7B model's 32.
_PUBLISHED_HEADS = {4096: 32}
_BLOCK = "blocks.{i}."
_KEYS: KeyTable = {
    "cls_token": "cls_token",
    "storage_tokens": "reg_token",
    "mask_token": None,  # stands for masked patches in training only
    "patch_embed.proj.weight": "patch_embed.proj.weight",
    "patch_embed.proj.bias": "patch_embed.proj.bias",
    "rope_embed.periods": PERIODS,
    f"{_BLOCK}norm1.*": f"{_BLOCK}norm1.*",
    f"{_BLOCK}attn.qkv.weight": f"{_BLOCK}attn.qkv.weight",
    f"{_BLOCK}attn.qkv.bias": f"{_BLOCK}attn.qkv.bias",  # split below, by the mask
    f"{_BLOCK}attn.qkv.bias_mask": f"{_BLOCK}attn.qkv.bias_mask",
    f"{_BLOCK}attn.proj.*": f"{_BLOCK}attn.proj.*",
    f"{_BLOCK}ls1.gamma": f"{_BLOCK}gamma_1",
    f"{_BLOCK}norm2.*": f"{_BLOCK}norm2.*",
    f"{_BLOCK}mlp.fc1.*": f"{_BLOCK}mlp.fc1.*",
    f"{_BLOCK}mlp.fc2.*": f"{_BLOCK}mlp.fc2.*",
    f"{_BLOCK}mlp.w1.*": f"{_BLOCK}mlp.fc1_g.*",
    f"{_BLOCK}mlp.w2.*": f"{_BLOCK}mlp.fc1_x.*",
    f"{_BLOCK}mlp.w3.*": f"{_BLOCK}mlp.fc2.*",
    f"{_BLOCK}ls2.gamma": f"{_BLOCK}gamma_2",
    "norm.*": "norm.*",
    "local_cls_norm.*": None,  # of local crops, in training only
}
_HEADS = dropped("dino_head.*", "ibot_head.*")


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT with stored rotary periods under the authors' name, bare or in a teacher."""
    weights, prefix = _weights(checkpoint)
    return {f"{prefix}{TYPICAL}", f"{prefix}patch_embed.proj.weight"} <= set(weights)


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    weights, prefix = _weights(checkpoint)
    renamed, left_out = apply_table(weights, {**_HEADS, **prefixed(prefix, _KEYS)})
    state_dict = _split_bias(renamed)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=dinov3_spec(state_dict, num_heads),
        state_dict=state_dict,
        dropped=left_out,
        epoch=-1,
    )


def dinov3_spec(state_dict: Mapping[str, Tensor], num_heads: int | None) -> DINOv3Spec:
    """Read a DINOv3 ViT's numbers off its weights.

    Args:
        state_dict: timm's names, with the rotary periods.
        num_heads: Heads per block; None for what the periods say.

    Raises:
        FormatError: If the weights are not a DINOv3's, or the heads contradict the periods.
        ValueError: If the numbers do not fit each other.
    """
    gate = "blocks.0.mlp.fc1_g.weight"
    mlp: MLPKind = "swiglu" if gate in state_dict else "gelu"
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        hidden, _ = state_dict[gate if mlp == "swiglu" else "blocks.0.mlp.fc1.weight"].shape
        (periods,) = state_dict[PERIODS].shape
        registers = state_dict["reg_token"].shape[1] if "reg_token" in state_dict else 0
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(f"not the weights of a DINOv3 ({error}); the names are {abbreviate(state_dict)}") from error
    stored = state_dict[PERIODS]
    if not (stored > 0).all() or not (stored.diff() > 0).all():
        raise FormatError("the rotary periods must be positive and ascending")
    heads, rest = divmod(embed_dim, max(4 * periods, 1))
    if rest or not heads:
        raise FormatError(f"{periods} rotary periods do not fit a width of {embed_dim}: a head is four times as wide")
    if num_heads not in (None, heads):
        raise FormatError(f"--num-heads {num_heads} contradicts the rotary periods, which are those of {heads} heads")
    return DINOv3Spec(
        embed_dim=embed_dim,
        depth=count_numbered(state_dict, "blocks."),
        num_heads=heads,
        patch_size=patch_size,
        hidden_dim=hidden,
        mlp=mlp,
        query_value_bias="blocks.0.attn.q_bias" in state_dict,
        register_tokens=registers,
    )


def with_periods(state_dict: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Tensor]:
    """Add the rotary periods, as timm and Hugging Face compute them, to weights of theirs, which do not hold them.

    Args:
        state_dict: timm's names.
        num_heads: Heads per block; None for those of the published model of this width, else 64 channels per head.

    Raises:
        FormatError: If the weights are not a ViT's.
        ValueError: If the number of heads is needed and not given, or no rotary positions fit it.
    """
    patches = state_dict.get("patch_embed.proj.weight")
    if patches is None or patches.ndim != 4:
        raise FormatError(f"not the weights of a ViT; the names are {abbreviate(state_dict)}")
    embed_dim = len(patches)
    heads = num_heads or _PUBLISHED_HEADS.get(embed_dim) or standard_num_heads(embed_dim)
    if embed_dim % (4 * heads) or not embed_dim:
        raise FormatError(f"{heads} heads do not divide a width of {embed_dim} into multiples of 4; pass --num-heads")
    return {**state_dict, PERIODS: computed_periods(embed_dim // heads)}


def _split_bias(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The joint biases as timm's `q_bias` and `v_bias`.

    Raises:
        FormatError: If a bias comes without its mask, or the mask lets a bias of the keys through.
    """
    split = {}
    for name, tensor in state_dict.items():
        if name.endswith("attn.qkv.bias_mask"):
            if name.removesuffix("_mask") not in state_dict:
                raise FormatError(f"incomplete attention: there is {name} but no bias")
            continue
        if not name.endswith("attn.qkv.bias"):
            split[name] = tensor
            continue
        mask = state_dict.get(f"{name}_mask")
        if mask is None or tensor.ndim != 1 or len(tensor) % 3 or mask.shape != tensor.shape:
            raise FormatError(f"{name} and its mask {name}_mask are missing or do not fit each other")
        width = len(tensor) // 3
        if not torch.equal(mask.float(), torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width)):
            raise FormatError(f"{name}_mask must be one for queries and values and zero for keys, which have no bias here")
        query, _, value = tensor.chunk(3)
        split[name.replace("qkv.bias", "q_bias")] = query.clone()
        split[name.replace("qkv.bias", "v_bias")] = value.clone()
    return split


def _weights(checkpoint: Any) -> tuple[Mapping[str, Tensor], str]:
    teacher = weights_under(checkpoint, "teacher")
    return (teacher, "backbone.") if teacher else (weights_under(checkpoint, "", "model", "state_dict"), "")
