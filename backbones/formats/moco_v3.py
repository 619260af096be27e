"""MoCo-v3's ViT checkpoint (facebookresearch/moco-v3, as its own conversion script reads it).

`{epoch, arch, state_dict, optimizer, scaler}`; the evaluated network is `module.base_encoder.`, not the momentum encoder.
ViT-S has **12** heads of 32 channels on purpose (issue moco-v3#7), where every other ViT-S has 6. Positions are fixed sine-cosine
ones, stored.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, FormatError, stated_epoch, weights_under
from backbones.formats.keys import dropped

NAME = "moco_v3"
TYPICAL = "state_dict/module.base_encoder.pos_embed"
BRANCHES = ("base_encoder", "momentum_encoder")
LICENCE = "CC-BY-NC-4.0"  # of the authors' repository
NUM_HEADS = {"vit_small": 12, "vit_base": 12}


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT base encoder."""
    return "module.base_encoder.pos_embed" in weights_under(checkpoint, "state_dict")


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    arch = checkpoint.get("arch")
    if num_heads is None and arch not in NUM_HEADS:
        raise FormatError(f"MoCo-v3's arch {arch!r} is none of {', '.join(NUM_HEADS)}; pass --num-heads")
    others = [f"module.{name}.*" for name in (*BRANCHES, "predictor") if name != branch]
    taken = take_backbone(
        weights_under(checkpoint, "state_dict"),
        f"module.{branch}.",
        dropped(f"module.{branch}.head.*", *others),
        num_heads or NUM_HEADS[str(arch)],
    )
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
