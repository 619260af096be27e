"""ReSim's ResNet checkpoint with its feature pyramid (the authors' `resim_fpn_*` files).

MoCo's layout; the query encoder also holds `fpn_lateral*` and `fpn_output*`, which evaluation does not use. ReSim's C4 file has no
pyramid and is MoCo's layout (`backbones.formats.moco`); its `*_backbone_*` files are Detectron2's (`backbones.formats.detectron2`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, stated_epoch, weights_under
from backbones.formats.keys import dropped

NAME = "resim"
TYPICAL = "state_dict/module.encoder_q.fpn_lateral3.weight"
BRANCHES = ("encoder_q", "encoder_k")
LICENCE = "CC-BY-NC-4.0"  # of the authors' repository


def matches(checkpoint: Any) -> bool:
    """Whether there is a query encoder that is a ResNet with a pyramid."""
    names = weights_under(checkpoint, "state_dict")
    return "module.encoder_q.conv1.weight" in names and has_pyramid(names)


def has_pyramid(names: Iterable[str]) -> bool:
    """Whether any name is the query encoder's pyramid's."""
    return any(name.startswith("module.encoder_q.fpn_") for name in names)


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    network = f"module.{branch}."
    others = [f"module.{name}.*" for name in BRANCHES if name != branch]
    heads = [f"{network}{head}" for head in ("fc.*", "fpn_lateral{i}.*", "fpn_output{i}.*")]
    drops = dropped(*heads, "module.queue", "module.queue_ptr", *others)
    taken = take_backbone(weights_under(checkpoint, "state_dict"), network, drops, num_heads)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint),
    )
