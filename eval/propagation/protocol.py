"""The protocols of label propagation: their constants, and how a run departs from them.

Sources: dino of `eval_video_segmentation.py` of facebookresearch/dino 7c446df, in which SelfPatch 81aef149 changes nothing; dinov3 of
`notebooks/segmentation_tracking.ipynb` of facebookresearch/dinov3 6876159; cropmae of `downstreams/propagation` of
alexandre-eymael/CropMAE 5d0dab2, which is code of ajabri/videowalk 047f3f4, whose own defaults are crw.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from common.images import IMAGENET_STD
from eval.shared import require_at_least

# exp(80) = 5.5e34; float32 ends at 3.4e38, and labels are divided by sums of such weights.
LOWEST_TEMPERATURE = 1 / 80

ProtocolName = Literal["dino", "published", "fixed", "dinov3", "cropmae", "crw"]
Sides = Literal["long down", "nearest", "up", "short up, then long", "stretched"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of a protocol; the defaults are those of `dino`.

    What nobody would choose today, but every number published by DINO's script contains: `std`, `sides` and `first_labels`.
    """

    n_last_frames: int = 7
    neighbourhood_radius: float = 12  # in patches; 0: no limit
    neighbourhood: Literal["square", "circle", "open circle"] = "square"  # an open circle leaves out its edge
    first_frame_unlimited: bool = False
    """The first frame votes from everywhere; copies of it, within the neighbourhood, stand for frames before the first."""
    topk: int = 5
    ties: Literal["kept", "cut"] = "kept"  # with the last of the `topk`; cut: exactly so many votes
    temperature: float = 0.1
    weights: Literal["best exponentials", "softmax of the best"] = "best exponentials"
    """Of similarities divided by the temperature: exponentials, the best of them divided by their sum, or softmax of the best. They
    differ where the exponential makes two similarities equal."""
    short_side: int = 480
    sides: Sides = "long down"
    """Of a frame as the network sees it. `long down`: the short side as given, the long one in proportion, down to a multiple of
    `long_side_multiple`. `nearest`, `up`: both in proportion, to what the network takes. `short up, then long`: the long one in
    proportion to the rounded short one. `stretched`: `stretched_to`, whatever the proportion."""
    long_side_multiple: int | None = 64  # fits every stride up to 64; it narrows 854 pixels to 832, by 2.6 %
    stretched_to: tuple[int, int] | None = None  # height, width
    resize: Literal["opencv, levels", "opencv", "pillow, bicubic"] = "opencv, levels"
    """OpenCV's is bilinear without antialiasing, of whole levels or of fractions; Pillow's has antialiasing."""
    std: tuple[float, float, float] = (0.228, 0.224, 0.225)  # training uses .229; the script's .228 is a slip
    first_labels: Literal["nearest", "nearest, centred", "mean", "bilinear"] = "nearest"
    """How the first mask comes to the grid. `nearest` counts the objects there, so that one too thin for the grid loses its channel
    if it has the highest id, and keeps an empty one otherwise; either way it is never predicted."""
    output: Literal["bilinear, stretched", "nearest, stretched", "bilinear"] = "bilinear, stretched"
    """How labels become masks; stretched: each channel to [0, 1] over the frame, before they compete."""


_DINO = Rules()
_CROPMAE = Rules(
    n_last_frames=20,
    neighbourhood_radius=20,
    neighbourhood="open circle",
    first_frame_unlimited=True,
    topk=7,
    ties="cut",
    temperature=0.7,
    weights="softmax of the best",
    sides="stretched",
    long_side_multiple=None,
    stretched_to=(480, 880),
    resize="opencv",
    std=IMAGENET_STD,
    first_labels="bilinear",
    output="bilinear",
)
RULES: dict[ProtocolName, Rules] = {
    "dino": _DINO,
    "published": _DINO,  # its name while there was no other
    # Without the quirks: the first mask is averaged over each patch, so that every object has some weight on the grid.
    "fixed": dataclasses.replace(_DINO, sides="nearest", long_side_multiple=None, std=IMAGENET_STD, first_labels="mean"),
    "dinov3": Rules(
        neighbourhood="circle",
        temperature=0.2,
        weights="softmax of the best",
        short_side=960,
        sides="short up, then long",
        long_side_multiple=None,
        resize="pillow, bicubic",
        std=IMAGENET_STD,
        first_labels="nearest, centred",
        output="nearest, stretched",
    ),
    "cropmae": _CROPMAE,
    "crw": dataclasses.replace(_CROPMAE, neighbourhood_radius=12, topk=10, temperature=0.07),
}
OF_DINO = ("dino", "published", "fixed")  # variants of one protocol: `fixed` is a deviation from it

# Grow whenever a change can change a mask or a metric.
VERSIONS: dict[ProtocolName, int] = {"dino": 2, "published": 2, "fixed": 2, "dinov3": 1, "cropmae": 1, "crw": 1}


@dataclass(frozen=True, kw_only=True)
class PropagationSettings:
    """Settings of label propagation; the defaults are the protocol's."""

    protocol: ProtocolName = "dino"
    """`dino`, also called `published`: DINO's script, with its quirks, which `fixed` turns off. `dinov3`, `cropmae`, `crw`: what
    these authors use; figures of one protocol are not those of another."""
    n_last_frames: int | None = None
    """Frames before the target that vote, besides the first frame; by default 7, and 20 for `cropmae` and `crw`."""
    neighbourhood_radius: int | None = None
    """Largest distance in patches from which a patch takes labels, 0: no limit; by default 12, and 20 for `cropmae`. In rows and
    columns (Chebyshev) for `dino`, Euclidean for the others."""
    topk: int | None = None
    """Source patches that vote for a target patch, over all context frames jointly; by default 5, 7 for `cropmae`, 10 for `crw`. For
    `dino` and `dinov3` more where the last place is tied."""
    temperature: float | None = None
    """Similarities are divided by this before the exponential; by default .1, .2 for `dinov3`, .7 for `cropmae`, .07 for `crw`. At
    least 1/80, below which that is no number of float32."""
    short_side: int | None = None
    """Shorter side in pixels of the frames that the backbone sees; by default 480, and 960 for `dinov3`. For `cropmae` and `crw`
    their height, and the width in proportion: frames are stretched to 480 x 880."""
    round_up: bool = False
    """For `dino`: round both sides of a frame up to what the backbone takes, and not the long side down to a multiple of 64, which
    patches of 14 pixels do not fit."""
    block: int | None = None
    """0-based block (ViT) or stage (Swin, ResNet) whose output serves as features, without the final norm; not given: the last one's,
    after the final norm where the backbone has one."""

    def __post_init__(self) -> None:
        require_at_least(self, {"n_last_frames": 0, "neighbourhood_radius": 0, "topk": 1, "short_side": 64, "block": 0})
        if self.temperature is not None and not LOWEST_TEMPERATURE <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature} must be a number of at least {LOWEST_TEMPERATURE}: "
                "below that, exp(1 / temperature) overflows"
            )
        if self.round_up and self.protocol not in OF_DINO:
            raise ValueError(
                f"round_up=True goes with protocol=dino; protocol={self.protocol} says itself how sides are rounded"
            )

    @property
    def rules(self) -> Rules:
        """The protocol's constants with the user's own."""
        published = RULES[self.protocol]
        names = ("n_last_frames", "neighbourhood_radius", "topk", "temperature", "short_side")
        changes: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.round_up:
            changes |= {"sides": "up", "long_side_multiple": None}
        if published.stretched_to and self.short_side is not None:
            height, width = published.stretched_to
            changes["stretched_to"] = (self.short_side, self.short_side * width // height)
        return dataclasses.replace(published, **changes)


def settings_of(rules: Any) -> dict[str, Any]:
    """The constants of a task whose rules have those of `propagation` as a part, JSON-ready, those among the others."""
    settings = dataclasses.asdict(rules)
    return {**settings.pop("propagation"), **settings}


def propagation_settings(config: PropagationSettings) -> dict[str, Any]:
    """A result's record of the rules and the features; JSON-ready."""
    rules = dataclasses.asdict(config.rules)
    if config.protocol not in OF_DINO:
        return {"protocol": config.protocol, "block": config.block, **rules}
    # What was recorded while there was no other protocol, so that finished runs are recognised.
    votes = ("n_last_frames", "neighbourhood_radius", "topk", "temperature", "short_side")
    return {
        "protocol": "fixed" if config.protocol == "fixed" else "published",
        **{name: rules[name] for name in votes},
        **({"round_up": True} if config.round_up else {}),
        "block": config.block,
        **{name: rules[name] for name in ("std", "long_side_multiple")},
        "drop_highest_id": config.rules.first_labels == "nearest",
    }


def deviations(config: PropagationSettings) -> dict[str, list[Any]]:
    """Settings that differ from the published protocol: name -> [published, used]; `fixed` is a deviation from `dino`."""
    published = propagation_settings(PropagationSettings(protocol="dino" if config.protocol in OF_DINO else config.protocol))
    used = propagation_settings(config)
    return {name: [published.get(name), value] for name, value in used.items() if value != published.get(name)}
