"""Hugging Face's `Dinov2Model` and `Dinov2WithRegistersModel` (transformers, convert_dinov2_to_hf.py and its sibling).

Bare state dicts, as `pytorch_model.bin` or `model.safetensors`; in models with a head the names begin with `dinov2.` or
`dinov2_with_registers.`. Query, key and value are separate, LayerScale is `lambda1`, the gated MLP `weights_in`, `weights_out`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import vit_spec
from backbones.formats.base import Conversion, FormatError, weights_under
from backbones.formats.dinov2 import positions_like_timm
from backbones.formats.keys import KeyTable, apply_table, dropped, join_qkv, prefixed

NAME = "huggingface_dinov2"
TYPICAL = "dinov2.encoder.layer.0.layer_scale1.lambda1"
BRANCHES = ("model",)
LICENCE = "Apache-2.0"  # of DINOv2's repository
_PREFIXES = ("", "dinov2.", "dinov2_with_registers.")
_MARKS = ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layer_scale1.lambda1")
_LAYER = "encoder.layer.{i}."
_KEYS: KeyTable = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.mask_token": None,  # stands for masked patches in training only
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    f"{_LAYER}norm1.*": "blocks.{i}.norm1.*",
    f"{_LAYER}attention.attention.query.*": "blocks.{i}.attn.query.*",
    f"{_LAYER}attention.attention.key.*": "blocks.{i}.attn.key.*",
    f"{_LAYER}attention.attention.value.*": "blocks.{i}.attn.value.*",
    f"{_LAYER}attention.output.dense.*": "blocks.{i}.attn.proj.*",
    f"{_LAYER}layer_scale1.lambda1": "blocks.{i}.ls1.gamma",
    f"{_LAYER}norm2.*": "blocks.{i}.norm2.*",
    f"{_LAYER}mlp.fc1.*": "blocks.{i}.mlp.fc1.*",
    f"{_LAYER}mlp.fc2.*": "blocks.{i}.mlp.fc2.*",
    f"{_LAYER}mlp.weights_in.*": "blocks.{i}.mlp.fc1.*",
    f"{_LAYER}mlp.weights_out.*": "blocks.{i}.mlp.fc2.*",
    f"{_LAYER}layer_scale2.lambda1": "blocks.{i}.ls2.gamma",
    "layernorm.*": "norm.*",
}
_DROPS = dropped("classifier.*")


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT with Hugging Face's name for LayerScale."""
    return _prefix(checkpoint) is not None


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    table = {**_DROPS, **prefixed(_prefix(checkpoint) or "", _KEYS)}
    renamed, left_out = apply_table(weights_under(checkpoint, ""), table)
    if "cls_token" not in renamed or "norm.weight" not in renamed:
        raise FormatError("incomplete checkpoint, a Dinov2Model has embeddings.cls_token and layernorm.weight")
    state_dict = positions_like_timm(join_qkv(renamed))
    return Conversion(
        format=NAME, branch=branch, spec=vit_spec(state_dict, num_heads), state_dict=state_dict, dropped=left_out, epoch=-1
    )


def _prefix(checkpoint: Any) -> str | None:
    """What stands before the names; None where the model is not found."""
    names = weights_under(checkpoint, "")
    return next((prefix for prefix in _PREFIXES if all(prefix + mark in names for mark in _MARKS)), None)
