"""Hugging Face's `DINOv3ViTModel` (transformers, convert_dinov3_vit_to_hf.py and modeling_dinov3_vit.py).

Bare state dicts, as `model.safetensors`; transformers 5 calls `layer.` in memory `model.layer.`. Query, key and value are separate,
keys have no bias, LayerScale is `lambda1`, the gated MLP `gate_proj`, `up_proj`, `down_proj`. The rotary periods are not stored but
computed from the configuration's `rope_theta`, which is 100 in every published model.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.base import Conversion, weights_under
from backbones.formats.dinov3 import LICENCE as LICENCE  # the same weights
from backbones.formats.dinov3 import dinov3_spec, with_periods
from backbones.formats.keys import KeyTable, apply_table, join_qkv

NAME = "huggingface_dinov3"
TYPICAL = "layer.0.attention.q_proj.weight"
BRANCHES = ("model",)
_MARKS = {"embeddings.cls_token", "embeddings.patch_embeddings.weight"}
_LAYER = "layer.{i}."
_BLOCK = "blocks.{i}."
_LAYER_KEYS: KeyTable = {
    "norm1.*": "norm1.*",
    "attention.q_proj.weight": "attn.query.weight",
    "attention.k_proj.weight": "attn.key.weight",
    "attention.v_proj.weight": "attn.value.weight",
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj.*": "attn.proj.*",
    "layer_scale1.lambda1": "gamma_1",
    "norm2.*": "norm2.*",
    "mlp.gate_proj.*": "mlp.fc1_g.*",
    "mlp.up_proj.*": "mlp.fc1.*",  # of the gated MLP: fc1_x, see below
    "mlp.down_proj.*": "mlp.fc2.*",
    "layer_scale2.lambda1": "gamma_2",
}
_KEYS: KeyTable = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.mask_token": None,  # stands for masked patches in training only
    "embeddings.patch_embeddings.*": "patch_embed.proj.*",
    **{f"{_LAYER}{source}": f"{_BLOCK}{target}" for source, target in _LAYER_KEYS.items()},
    **{f"model.{_LAYER}{source}": f"{_BLOCK}{target}" for source, target in _LAYER_KEYS.items()},
    "norm.*": "norm.*",
}


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT with Hugging Face's names for DINOv3's attention."""
    names = set(weights_under(checkpoint, ""))
    return names >= _MARKS and bool(names & {TYPICAL, f"model.{TYPICAL}"})


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    renamed, left_out = apply_table(weights_under(checkpoint, ""), _KEYS)
    state_dict = with_periods(_gated(join_qkv(renamed)), num_heads)
    return Conversion(
        format=NAME, branch=branch, spec=dinov3_spec(state_dict, num_heads), state_dict=state_dict, dropped=left_out, epoch=-1
    )


def _gated(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`up_proj` is the first layer of a plain MLP, and beside a gate the value."""
    if "blocks.0.mlp.fc1_g.weight" not in state_dict:
        return dict(state_dict)
    return {re.sub(r"\.mlp\.fc1\.", ".mlp.fc1_x.", name): tensor for name, tensor in state_dict.items()}
