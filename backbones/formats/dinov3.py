"""DINOv3, which is recognised and refused.

Its ViTs rotate queries and keys by the patches' coordinates (RoPE) instead of adding stored positions, a network that a backbone file
cannot describe. Source of the names: facebookresearch/dinov3, dinov3/models/vision_transformer.py; the same weights in timm
(`eva.py`) and in Hugging Face's `DINOv3ViTModel`.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from backbones.formats.base import FormatError, weights_under

NAME = "dinov3"
TYPICAL = "rope_embed.periods"
BRANCHES = ("teacher",)
LICENCE = "DINOv3 License"  # of the authors' repository
_MARKS = (
    {"rope_embed.periods"},
    {"backbone.rope_embed.periods"},
    {"storage_tokens", "patch_embed.proj.weight"},
    {"reg_token", "patch_embed.proj.weight", "blocks.0.gamma_1"},
    {"embeddings.register_tokens", "layer.0.attention.q_proj.weight"},
)


def matches(checkpoint: Any) -> bool:
    """Whether the names are the authors', timm's or Hugging Face's."""
    names = set(weights_under(checkpoint, "", "teacher", "model", "state_dict"))
    return any(mark <= names for mark in _MARKS)


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> NoReturn:
    """Refuse."""
    raise FormatError("a DINOv3: its rotary position embeddings are not supported, and nothing else would give its features")
