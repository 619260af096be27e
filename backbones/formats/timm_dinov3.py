"""DINOv3's ViTs in timm (`eva.py`, `vit_*_dinov3*`): timm's names, and no rotary periods, which timm computes.

timm's other `Eva` networks differ in how their positions rotate, which the weights do not show; none of them has a CLS token,
registers and LayerScale and no stored positions.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.base import Conversion, weights_under
from backbones.formats.dinov3 import LICENCE as LICENCE  # the same weights
from backbones.formats.dinov3 import dinov3_spec, with_periods
from backbones.formats.keys import KeyTable, apply_table

NAME = "timm_dinov3"
TYPICAL = "blocks.0.gamma_1"
BRANCHES = ("model",)
_MARKS = {"cls_token", "reg_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", TYPICAL}
_KEYS: KeyTable = {
    **{
        name: name
        for name in (
            "cls_token",
            "reg_token",
            "patch_embed.proj.weight",
            "patch_embed.proj.bias",
            "blocks.{i}.norm1.*",
            "blocks.{i}.attn.qkv.weight",
            "blocks.{i}.attn.q_bias",
            "blocks.{i}.attn.v_bias",
            "blocks.{i}.attn.proj.*",
            "blocks.{i}.gamma_1",
            "blocks.{i}.norm2.*",
            "blocks.{i}.mlp.fc1.*",
            "blocks.{i}.mlp.fc1_g.*",
            "blocks.{i}.mlp.fc1_x.*",
            "blocks.{i}.mlp.fc2.*",
            "blocks.{i}.gamma_2",
            "norm.*",
        )
    },
    "head.*": None,
}


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT with timm's names for LayerScale in `Eva`, with CLS token and registers but no positions."""
    names = set(_weights(checkpoint))
    return names >= _MARKS and "pos_embed" not in names


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    taken, left_out = apply_table(_weights(checkpoint), _KEYS)
    state_dict = with_periods(taken, num_heads)
    return Conversion(
        format=NAME, branch=branch, spec=dinov3_spec(state_dict, num_heads), state_dict=state_dict, dropped=left_out, epoch=-1
    )


def _weights(checkpoint: Any) -> Mapping[str, Tensor]:
    return weights_under(checkpoint, "", "state_dict", "model")
