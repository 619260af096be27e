"""SelfPatch's training checkpoint (alinlab/SelfPatch 81aef149, main_selfpatch.py).

`{student, teacher, optimizer, epoch, args, ...}`. The teacher's names begin with `backbone.`, the student's with `module.backbone.`
(DistributedDataParallel). The backbone has neither CLS token nor final norm: these live in the aggregation module `ca_head`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.base import Conversion, stated_epoch, take, teacher_weights, vit_spec

NAME = "selfpatch"
BRANCHES = ("teacher", "student")
LICENCE = "Apache-2.0"  # of the authors' repository
_HEADS = ("ca_head.", "c_head.", "p_head.")


def matches(checkpoint: Any) -> bool:
    """Whether the teacher is a ViT without a CLS token of its own."""
    teacher = teacher_weights(checkpoint)
    return "backbone.pos_embed" in teacher and "backbone.cls_token" not in teacher


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    wrapper = "module." if branch == "student" else ""
    heads = [wrapper + head for head in _HEADS]
    state_dict, dropped = take(checkpoint[branch], f"{wrapper}backbone.", heads)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=vit_spec(state_dict, num_heads),
        state_dict=state_dict,
        dropped=dropped,
        epoch=stated_epoch(checkpoint),
    )
