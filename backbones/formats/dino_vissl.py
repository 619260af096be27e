"""DINO trained with VISSL: the 300-epoch ViT-S/16 behind the paper's DINO rows.

`classy_state_dict.base_model.model.{trunk, heads}`; the trunk has timm's names. `phase_idx` counts epochs from 0.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.base import Conversion, is_state_dict, stated_epoch, vit_spec

NAME = "dino_vissl"
BRANCHES = ("trunk",)
LICENCE = "MIT"  # of VISSL's repository


def matches(checkpoint: Any) -> bool:
    """Whether there is a trunk at VISSL's place."""
    return is_state_dict(_model(checkpoint).get("trunk"))


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    model = _model(checkpoint)
    state_dict = dict(model[branch])
    phase = stated_epoch(checkpoint, "phase_idx")
    return Conversion(
        format=NAME,
        branch=branch,
        spec=vit_spec(state_dict, num_heads),
        state_dict=state_dict,
        dropped={"heads.*": tuple(f"heads.{name}" for name in model["heads"])} if model.get("heads") else {},
        epoch=phase + 1 if phase >= 0 else -1,
    )


def _model(checkpoint: Any) -> Mapping[str, Any]:
    for key in ("classy_state_dict", "base_model", "model"):
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    return checkpoint if isinstance(checkpoint, Mapping) else {}
