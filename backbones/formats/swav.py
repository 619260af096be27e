"""SwAV's ResNet checkpoint (facebookresearch/swav, main_swav.py).

The released files are bare state dicts with `module.` before each name; own runs put them under `state_dict`, beside `epoch`,
`optimizer` and `amp`. The projection head and the prototypes are dropped. SwAV pads before its first convolution, which pads one
pixel less in return: together that is torchvision's.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, is_state_dict, stated_epoch, weights_under
from backbones.formats.keys import dropped

NAME = "swav"
TYPICAL = "module.prototypes.weight"
BRANCHES = ("model",)
LICENCE = "CC-BY-NC-4.0"  # of the authors' repository
# Several sets of prototypes are numbered: prototypes.prototypes0.weight.
_DROPS = dropped("module.projection_head.*", "module.prototypes.*")


def matches(checkpoint: Any) -> bool:
    """Whether there is a ResNet behind `module.`."""
    return "module.layer1.0.conv1.weight" in weights_under(checkpoint, "", "state_dict")


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    taken = take_backbone(weights_under(checkpoint, "", "state_dict"), "module.", _DROPS, num_heads)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=-1 if is_state_dict(checkpoint) else stated_epoch(checkpoint),
    )
