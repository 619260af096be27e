"""Hugging Face's `ViTModel` and the encoder of its `ViTMAEModel` (transformers, modeling_vit.py, modeling_vit_mae.py).

Bare state dicts, as `pytorch_model.bin` or `model.safetensors`; in models with a head the names begin with `vit.`. Query, key and
value are separate. Its configurations state a LayerNorm epsilon of 1e-12; the weights that people convert to it were trained with
1e-6, which is used here.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import vit_spec
from backbones.formats.base import Conversion, FormatError, weights_under
from backbones.formats.keys import KeyTable, apply_table, dropped, join_qkv, prefixed

NAME = "huggingface_vit"
TYPICAL = "vit.encoder.layer.0.attention.attention.query.weight"
BRANCHES = ("model",)
LICENCE = "not stated"  # each model's card states its own
_PREFIXES = ("", "vit.")
_MARKS = ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layernorm_before.weight")
_LAYER = "encoder.layer.{i}."
_KEYS: KeyTable = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.mask_token": None,
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    f"{_LAYER}layernorm_before.*": "blocks.{i}.norm1.*",
    f"{_LAYER}attention.attention.query.*": "blocks.{i}.attn.query.*",
    f"{_LAYER}attention.attention.key.*": "blocks.{i}.attn.key.*",
    f"{_LAYER}attention.attention.value.*": "blocks.{i}.attn.value.*",
    f"{_LAYER}attention.output.dense.*": "blocks.{i}.attn.proj.*",
    f"{_LAYER}layernorm_after.*": "blocks.{i}.norm2.*",
    f"{_LAYER}intermediate.dense.*": "blocks.{i}.mlp.fc1.*",
    f"{_LAYER}output.dense.*": "blocks.{i}.mlp.fc2.*",
    "layernorm.*": "norm.*",
    "pooler.*": None,
}
_DROPS = dropped("classifier.*", "decoder.*")


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT with Hugging Face's names for its norms."""
    return _prefix(checkpoint) is not None


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    table = {**_DROPS, **prefixed(_prefix(checkpoint) or "", _KEYS)}
    renamed, left_out = apply_table(weights_under(checkpoint, ""), table)
    if "cls_token" not in renamed or "norm.weight" not in renamed:
        raise FormatError("incomplete checkpoint, a ViTModel has embeddings.cls_token and layernorm.weight")
    state_dict = join_qkv(renamed)
    return Conversion(
        format=NAME, branch=branch, spec=vit_spec(state_dict, num_heads), state_dict=state_dict, dropped=left_out, epoch=-1
    )


def _prefix(checkpoint: Any) -> str | None:
    """What stands before the names; None where the model is not found."""
    names = weights_under(checkpoint, "")
    return next((prefix for prefix in _PREFIXES if all(prefix + mark in names for mark in _MARKS)), None)
