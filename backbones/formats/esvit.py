"""EsViT's training checkpoint with a Swin transformer (microsoft/esvit, main_esvit.py).

`{student, teacher, optimizer, epoch, args, ...}`. The heads are attributes of the network, so the backbone's names have no prefix
beside the `module.` of DistributedDataParallel, which the teacher has too where its network contains batch normalisation.
EsViT's other backbones (Longformer, CvT) are not supported.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, teacher_weights, weights_under
from backbones.formats.keys import dropped

NAME = "esvit"
TYPICAL = "teacher/layers.0.blocks.0.attn.relative_position_bias_table"
BRANCHES = ("teacher", "student")
LICENCE = "MIT"  # of the authors' repository
_MARK = "layers.0.blocks.0.attn.relative_position_bias_table"


def matches(checkpoint: Any) -> bool:
    """Whether the teacher is a Swin without a prefix but `module.`."""
    names = set(teacher_weights(checkpoint))
    return _MARK in names or f"module.{_MARK}" in names


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    weights = weights_under(checkpoint, branch)
    wrapper = "module." if f"module.{_MARK}" in weights else ""
    taken = take_backbone(weights, wrapper, dropped(f"{wrapper}head.*", f"{wrapper}head_dense.*"), num_heads)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
