"""DenseCL's training checkpoint (WXinlong/DenseCL 5d1c456, openselfsup/models/densecl.py).

`{meta, state_dict, optimizer}`. Each encoder is a sequence of backbone (`.0.`) and neck (`.1.`); `backbone.` repeats the query
encoder's backbone. The released backbones are plain torchvision state dicts, see `backbones.formats.timm`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, weights_under
from backbones.formats.keys import dropped

NAME = "densecl"
TYPICAL = "state_dict/encoder_q.0.conv1.weight"
BRANCHES = ("encoder_q", "encoder_k")
LICENCE = "GPL-3.0"  # of the authors' repository
_REST = ("backbone.*", "head.*", "queue", "queue_ptr", "queue2", "queue2_ptr")


def matches(checkpoint: Any) -> bool:
    """Whether the query encoder is a sequence that begins with a ResNet."""
    return "encoder_q.0.conv1.weight" in weights_under(checkpoint, "state_dict")


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    others = [f"{name}.*" for name in BRANCHES if name != branch]
    drops = dropped(f"{branch}.1.*", *others, *_REST)
    taken = take_backbone(weights_under(checkpoint, "state_dict"), f"{branch}.0.", drops, num_heads)
    meta = checkpoint.get("meta")
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(meta) if isinstance(meta, Mapping) else -1,
    )
