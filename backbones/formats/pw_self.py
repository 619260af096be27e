"""PW-Self's training checkpoint (alijavidani/Local_Global_Representation_Learning 7eeff8c, built on DINO's code).

DINO's layout: `{student, teacher, optimizer, epoch, args, dino_loss, ...}` with one `head.` for all tokens. What tells it from
DINO's is the centre of its loss, one per token: `[1, 1 + N, K]` where DINO has `[1, K]`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, teacher_weights, weights_under
from backbones.formats.keys import dropped

NAME = "pw_self"
TYPICAL = "dino_loss/center of shape [1, 1 + N, K]"
BRANCHES = ("teacher", "student")
LICENCE = "Apache-2.0"  # of the authors' repository


def matches(checkpoint: Any) -> bool:
    """Whether it is DINO's layout with a centre per token."""
    return "backbone.cls_token" in teacher_weights(checkpoint) and has_patch_centre(checkpoint)


def has_patch_centre(checkpoint: Any) -> bool:
    """Whether the loss keeps a centre per token."""
    centre = weights_under(checkpoint, "dino_loss").get("center")
    return centre is not None and centre.ndim == 3


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
