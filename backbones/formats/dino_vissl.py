"""DINO trained with VISSL: the 300-epoch ViT-S/16 behind the paper's DINO rows.

`classy_state_dict.base_model.model.{trunk, heads}`; the trunk has timm's names. `phase_idx` counts epochs from 0.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, weights_under

NAME = "dino_vissl"
TYPICAL = "classy_state_dict/base_model/model/trunk/cls_token"
BRANCHES = ("trunk",)
LICENCE = "MIT"  # of VISSL's repository


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT trunk at VISSL's place."""
    return "patch_embed.proj.weight" in weights_under(_model(checkpoint), "trunk")


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    model = _model(checkpoint)
    taken = take_backbone(weights_under(model, branch), "", {}, num_heads)
    heads = weights_under(model, "heads")
    phase = stated_epoch(checkpoint, "phase_idx")
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped={**taken.dropped, "heads.*": tuple(f"heads.{name}" for name in heads)} if heads else taken.dropped,
        epoch=phase + 1 if phase >= 0 else -1,
    )


def _model(checkpoint: Any) -> Mapping[str, Any]:
    for key in ("classy_state_dict", "base_model", "model"):
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    return checkpoint if isinstance(checkpoint, Mapping) else {}
