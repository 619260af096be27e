"""DINO's training checkpoint (facebookresearch/dino 7c446df, main_dino.py).

`{student, teacher, optimizer, epoch, args, dino_loss, ...}`, a ViT with CLS token and final norm, and `head.`. DINO's released
backbone-only files are plain timm state dicts, see `backbones.formats.timm`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.base import Conversion, stated_epoch, take, teacher_weights, vit_spec

NAME = "dino"
BRANCHES = ("teacher", "student")
LICENCE = "Apache-2.0"  # of the authors' repository


def matches(checkpoint: Any) -> bool:
    """Whether the teacher is a ViT with a CLS token."""
    return "backbone.cls_token" in teacher_weights(checkpoint)


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    wrapper = "module." if branch == "student" else ""
    state_dict, dropped = take(checkpoint[branch], f"{wrapper}backbone.", [f"{wrapper}head."])
    return Conversion(
        format=NAME,
        branch=branch,
        spec=vit_spec(state_dict, num_heads),
        state_dict=state_dict,
        dropped=dropped,
        epoch=stated_epoch(checkpoint),
    )
