"""MoCo-v3's ViT checkpoint (facebookresearch/moco-v3, as its own conversion script reads it).

`{epoch, arch, state_dict, optimizer, scaler}`; the evaluated network is `module.base_encoder.`, not the momentum encoder.
ViT-S has **12** heads of 32 channels on purpose (issue moco-v3#7), where every other ViT-S has 6. Positions are fixed sine-cosine
ones, stored.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.base import Conversion, FormatError, is_state_dict, stated_epoch, take, vit_spec

NAME = "moco_v3"
BRANCHES = ("base_encoder", "momentum_encoder")
LICENCE = "CC-BY-NC-4.0"  # of the authors' repository
NUM_HEADS = {"vit_small": 12, "vit_base": 12}


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT base encoder."""
    if not isinstance(checkpoint, Mapping) or not is_state_dict(checkpoint.get("state_dict")):
        return False
    return "module.base_encoder.pos_embed" in checkpoint["state_dict"]


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    arch = checkpoint.get("arch")
    if num_heads is None and arch not in NUM_HEADS:
        raise FormatError(f"MoCo-v3's arch {arch!r} is none of {', '.join(NUM_HEADS)}; pass --num-heads")
    others = [f"module.{name}." for name in (*BRANCHES, "predictor") if name != branch]
    state_dict, dropped = take(checkpoint["state_dict"], f"module.{branch}.", [f"module.{branch}.head.", *others])
    return Conversion(
        format=NAME,
        branch=branch,
        spec=vit_spec(state_dict, num_heads or NUM_HEADS[str(arch)]),
        state_dict=state_dict,
        dropped=dropped,
        epoch=stated_epoch(checkpoint),
    )
