"""MoBY's checkpoints (SwinTransformer/Transformer-SSL): a DeiT-S with CLS token, or a Swin-T.

`{model, optimizer, lr_scheduler, max_accuracy, epoch, config}`; the evaluated network is the online `encoder.`. The published
links of the two models are swapped (issues Transformer-SSL#16, #9), so the architecture is read from the names, never from the
file name. `epoch` is the index of the last epoch, counted from 0.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, weights_under
from backbones.formats.keys import dropped

NAME = "moby"
TYPICAL = "model/encoder.patch_embed.proj.weight"
BRANCHES = ("encoder", "encoder_k")
LICENCE = "MIT"  # of the authors' repository
_HEADS = ("projector.*", "projector_k.*", "predictor.*", "queue1", "queue2", "queue_ptr")


def matches(checkpoint: Any) -> bool:
    """Whether there is an online encoder."""
    return "encoder.patch_embed.proj.weight" in weights_under(checkpoint, "model")


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    others = [f"{name}.*" for name in BRANCHES if name != branch]
    taken = take_backbone(weights_under(checkpoint, "model"), f"{branch}.", dropped(*_HEADS, *others), num_heads)
    last_epoch = stated_epoch(checkpoint)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=last_epoch + 1 if last_epoch >= 0 else -1,
    )
