"""JHMDB's protocols: their constants, and how a run departs from them.

Sources: `downstreams/propagation` of alexandre-eymael/CropMAE 5d0dab2 for cropmae; for crw the defaults of ajabri/videowalk 047f3f4.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from eval.jhmdb.config import JhmdbConfig, ProtocolName
from eval.propagation.protocol import RULES, Rules, settings_of

PROTOCOL_VERSION = 1  # grows whenever a change can change a place or a metric

SIGMA = 0.5  # of a joint's Gaussian, in patches
BOX_SHARE = 0.6  # of the diagonal of the box around a person, the unit of distances


@dataclass(frozen=True, kw_only=True)
class JhmdbRules:
    """The constants of a protocol."""

    joint_sigma: float = SIGMA
    joint_cells: int  # the strongest cells of a joint's labels, of which the weighted mean is its place
    box_share: float = BOX_SHARE
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)  # of PCK, inclusive
    first_frame: str = "not scored"
    mean: str = "over the joints, each of all its places in all videos"
    propagation: Rules


PUBLISHED: dict[ProtocolName, JhmdbRules] = {
    "cropmae": JhmdbRules(joint_cells=5, propagation=dataclasses.replace(RULES["cropmae"], stretched_to=(320, 320))),
    "crw": JhmdbRules(joint_cells=3, propagation=dataclasses.replace(RULES["crw"], stretched_to=(320, 320))),
}


def rules_of(config: JhmdbConfig, multiple: int) -> JhmdbRules:
    """The protocol's constants with the user's own; `multiple` is what the sides of the backbone's input must be one of."""
    published = PUBLISHED[config.protocol]
    if not config.round_up or published.propagation.stretched_to is None:
        return published
    height, width = (-(-side // multiple) * multiple for side in published.propagation.stretched_to)
    return dataclasses.replace(published, propagation=dataclasses.replace(published.propagation, stretched_to=(height, width)))


def deviations(config: JhmdbConfig, rules: JhmdbRules) -> dict[str, list[Any]]:
    """Constants and options that depart from the published protocol: name -> [published, used]."""
    block = {} if config.block is None else {"block": [None, config.block]}
    published, used = settings_of(PUBLISHED[config.protocol]), settings_of(rules)
    return block | {name: [published[name], value] for name, value in used.items() if value != published[name]}
