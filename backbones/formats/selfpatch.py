"""SelfPatch's training checkpoint (alinlab/SelfPatch 81aef149, main_selfpatch.py).

`{student, teacher, optimizer, epoch, args, ...}`. The teacher's names begin with `backbone.`, the student's with `module.backbone.`
(DistributedDataParallel). The backbone has neither CLS token nor final norm: these live in the aggregation module `ca_head`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, teacher_weights, weights_under
from backbones.formats.keys import dropped

NAME = "selfpatch"
TYPICAL = "teacher/ca_head.cls_token"
BRANCHES = ("teacher", "student")
LICENCE = "Apache-2.0"  # of the authors' repository
_HEADS = ("ca_head.*", "c_head.*", "p_head.*")


def matches(checkpoint: Any) -> bool:
    """Whether the teacher is a ViT without a CLS token of its own."""
    teacher = teacher_weights(checkpoint)
    return "backbone.pos_embed" in teacher and "backbone.cls_token" not in teacher


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    wrapper = "module." if branch == "student" else ""
    taken = take_backbone(
        weights_under(checkpoint, branch), f"{wrapper}backbone.", dropped(*(f"{wrapper}{head}" for head in _HEADS)), num_heads
    )
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
