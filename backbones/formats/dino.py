"""DINO's training checkpoint (facebookresearch/dino 7c446df, main_dino.py).

`{student, teacher, optimizer, epoch, args, dino_loss, ...}`, a ViT with CLS token and final norm, and `head.`; the student's names
begin with `module.` (DistributedDataParallel). DINO's ResNet-50 has the same layout. DINO's released backbone-only files are plain
timm state dicts, see `backbones.formats.timm`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, teacher_weights, weights_under
from backbones.formats.ibot import has_ibot_head
from backbones.formats.keys import dropped
from backbones.formats.pw_self import has_patch_centre

NAME = "dino"
TYPICAL = "teacher/backbone.cls_token"
BRANCHES = ("teacher", "student")
LICENCE = "Apache-2.0"  # of the authors' repository


def matches(checkpoint: Any) -> bool:
    """Whether the teacher is a ViT with a CLS token, or a ResNet, and none of the layouts derived from DINO's."""
    teacher = teacher_weights(checkpoint)
    is_backbone = "backbone.cls_token" in teacher or "backbone.layer1.0.conv1.weight" in teacher
    return (
        is_backbone and not has_ibot_head(teacher) and "backbone.mask_token" not in teacher and not has_patch_centre(checkpoint)
    )


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    wrapper = "module." if branch == "student" else ""
    taken = take_backbone(weights_under(checkpoint, branch), f"{wrapper}backbone.", dropped(f"{wrapper}head.*"), num_heads)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
