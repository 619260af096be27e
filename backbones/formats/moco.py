"""MoCo-v2's ResNet checkpoint (facebookresearch/moco, main_moco.py), and what others train with its code.

`{epoch, arch, state_dict, optimizer}`; the evaluated network is the query encoder `module.encoder_q.`. `fc` is the projection head.
ReSim's pyramid makes it a layout of its own, see `backbones.formats.resim`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, weights_under
from backbones.formats.keys import dropped
from backbones.formats.resim import has_pyramid

NAME = "moco"
TYPICAL = "state_dict/module.encoder_q.conv1.weight"
BRANCHES = ("encoder_q", "encoder_k")
LICENCE = "CC-BY-NC-4.0"  # of the authors' repository
_QUEUES = ("module.queue", "module.queue_ptr", "module.queue2", "module.queue2_ptr")


def matches(checkpoint: Any) -> bool:
    """Whether there is a query encoder that is a ResNet without a pyramid."""
    names = weights_under(checkpoint, "state_dict")
    return "module.encoder_q.conv1.weight" in names and not has_pyramid(names)


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    others = [f"module.{name}.*" for name in BRANCHES if name != branch]
    drops = dropped(f"module.{branch}.fc.*", *_QUEUES, *others)
    taken = take_backbone(weights_under(checkpoint, "state_dict"), f"module.{branch}.", drops, num_heads)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
