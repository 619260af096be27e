"""iBOT's training checkpoint (bytedance/ibot, main_ibot.py and models/head.py).

`{student, teacher, optimizer, epoch, args, ibot_loss, ...}`, DINO's layout with a head that has a second last layer for patches, and
a ViT or a Swin. The student alone has the learnt mask embedding. iBOT's released backbone-only files are plain timm state dicts,
see `backbones.formats.timm`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, teacher_weights, weights_under
from backbones.formats.keys import dropped

NAME = "ibot"
TYPICAL = "teacher/head.last_layer2.weight_g"
BRANCHES = ("teacher", "student")
LICENCE = "Apache-2.0"  # of the authors' repository


def matches(checkpoint: Any) -> bool:
    """Whether the teacher's head has a last layer for patches."""
    return has_ibot_head(teacher_weights(checkpoint))


def has_ibot_head(teacher: Mapping[str, Tensor]) -> bool:
    """Whether there is a second last layer, or a second MLP where the head has no bottleneck."""
    return any(name.startswith(("head.last_layer2.", "head.mlp2.")) for name in teacher)


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    wrapper = "module." if branch == "student" else ""
    taken = take_backbone(
        weights_under(checkpoint, branch),
        f"{wrapper}backbone.",
        dropped(f"{wrapper}head.*", f"{wrapper}backbone.masked_embed"),
        num_heads,
    )
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
