"""MoBY's checkpoints (SwinTransformer/Transformer-SSL): a DeiT-S with CLS token, or a Swin-T.

`{model, optimizer, lr_scheduler, max_accuracy, epoch, config}`; the evaluated network is the online `encoder.`. The published
links of the two models are swapped (issues Transformer-SSL#16, #9), so the architecture is read from the names, never from the
file name. `epoch` is the index of the last epoch, counted from 0.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.base import Conversion, FormatError, is_state_dict, stated_epoch, take, vit_spec
from backbones.formats.timm import drop_buffers, swin_buffers, swin_spec

NAME = "moby"
BRANCHES = ("encoder", "encoder_k")
LICENCE = "MIT"  # of the authors' repository
_HEADS = ("projector.", "projector_k.", "predictor.", "queue1", "queue2", "queue_ptr")


def matches(checkpoint: Any) -> bool:
    """Whether there is an online encoder beside a momentum encoder's heads."""
    if not isinstance(checkpoint, Mapping) or not is_state_dict(checkpoint.get("model")):
        return False
    return "encoder.patch_embed.proj.weight" in checkpoint["model"]


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    full = checkpoint["model"]
    buffers = swin_buffers(full)
    others = [f"{name}." for name in BRANCHES if name != branch]
    weights = {name: tensor for name, tensor in full.items() if name not in buffers}
    state_dict, dropped = take(weights, f"{branch}.", [*_HEADS, *others])
    is_swin = "pos_embed" not in state_dict
    if is_swin and num_heads is not None:
        raise FormatError("--num-heads applies to ViTs only; a Swin's weights show their heads")
    if is_swin:
        state_dict = downsampling_first(state_dict)
    last_epoch = stated_epoch(checkpoint)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=swin_spec(state_dict, buffers) if is_swin else vit_spec(state_dict, num_heads),
        state_dict=state_dict,
        dropped=dropped | drop_buffers(buffers),
        epoch=last_epoch + 1 if last_epoch >= 0 else -1,
    )


def downsampling_first(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move each downsampling from the end of its stage to the beginning of the next, where timm >= 0.9 has it."""

    def renamed(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", renamed, name): tensor for name, tensor in state_dict.items()}
