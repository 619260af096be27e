"""VIP's protocols: their constants, and how a run departs from them.

Sources: `downstreams/propagation` of alexandre-eymael/CropMAE 5d0dab2 for cropmae; for crw the defaults of ajabri/videowalk 047f3f4,
which states none for VIP's size: 560 is that of the papers that it compares with.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from eval.propagation.protocol import RULES, Rules
from eval.vip.config import ProtocolName, VipConfig

PROTOCOL_VERSION = 1  # grows whenever a change can change a mask or a metric

CLASSES = (
    *(
        "background",
        "hat",
        "hair",
        "sun-glasses",
        "upper-clothes",
        "dress",
        "coat",
        "socks",
        "pants",
        "gloves",
        "scarf",
        "skirt",
    ),
    *("torso-skin", "face", "right-arm", "left-arm", "right-leg", "left-leg", "right-shoe", "left-shoe"),
)


@dataclass(frozen=True, kw_only=True)
class VipRules:
    """The constants of a protocol; of `propagation`, `stretched_to` follows from a video's size."""

    long_side: int
    short_side_multiple: int = 64  # in proportion, down to a multiple of this; of a square frame the width is the short side
    first_frame: str = "predicted from its own labels, and scored"
    masks: str = "at the network's size, resized to the annotation's by nearest neighbour"
    mean: str = "one histogram over all frames of all videos; classes that are in neither are left out"
    propagation: Rules


PUBLISHED: dict[ProtocolName, VipRules] = {
    "cropmae": VipRules(long_side=880, propagation=dataclasses.replace(RULES["cropmae"], stretched_to=None, topk=10)),
    "crw": VipRules(long_side=560, propagation=dataclasses.replace(RULES["crw"], stretched_to=None)),
}


def deviations(config: VipConfig) -> dict[str, list[Any]]:
    """Options that depart from the published protocol: name -> [published, used]."""
    block = {} if config.block is None else {"block": [None, config.block]}
    return block | ({"round_up": [False, True]} if config.round_up else {})


def rules_for(size: tuple[int, int], rules: VipRules, multiple: int) -> Rules:
    """How to propagate through a video of this (height, width); both sides are rounded up to the multiple, 1 for none."""
    height, width = size
    short = max(1, min(size) * rules.long_side // (max(size) * rules.short_side_multiple)) * rules.short_side_multiple
    sides = (short, rules.long_side) if width > height else (rules.long_side, short)
    rows, columns = (-(-side // multiple) * multiple for side in sides)
    return dataclasses.replace(rules.propagation, stretched_to=(rows, columns))
