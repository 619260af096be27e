"""The protocol of label propagation: its settings, its quirks, and how a run departs from the published one.

Source: `eval_video_segmentation.py` of facebookresearch/dino 7c446df; SelfPatch 81aef149 changes nothing here.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from common.images import IMAGENET_STD

# exp(80) = 5.5e34; float32 ends at 3.4e38, and labels are divided by sums of such weights.
LOWEST_TEMPERATURE = 1 / 80

PROTOCOL_VERSION = 2  # grows whenever a change can change a mask or a metric


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """Properties of the authors' script that nobody would choose today but that every published number contains.

    - `std`: deviation of the image normalisation, in RGB.
    - `long_side_multiple`: the long side is rounded down to a multiple of this; None: both sides to what fits the backbone.
    - `drop_highest_id`: the objects are counted in the first mask after its reduction to the patch grid by nearest neighbour.
    """

    std: tuple[float, float, float]
    long_side_multiple: int | None
    drop_highest_id: bool


PUBLISHED = Quirks(
    # Training uses .229; the script's .228 is a slip that its numbers depend on.
    std=(0.228, 0.224, 0.225),
    # 64 fits every stride up to 64; it narrows 854 pixels to 832, so the aspect ratio changes by 2.6 %.
    long_side_multiple=64,
    # The number of channels is the highest id *on the grid* plus one: an object too thin for the grid loses its channel if it
    # has the highest id, and keeps an empty one otherwise. Either way it is never predicted.
    drop_highest_id=True,
)

# The first mask is averaged over each patch, so that every object has some weight on the grid.
FIXED = Quirks(std=IMAGENET_STD, long_side_multiple=None, drop_highest_id=False)


@dataclass(frozen=True, kw_only=True)
class PropagationSettings:
    """Settings of label propagation; the defaults are the published protocol."""

    protocol: Literal["published", "fixed"] = "published"
    """`published` keeps the quirks of the authors' script (input size, deviation .228, first mask); `fixed` turns them off."""
    n_last_frames: int = 7  # Frames before the target that vote, besides the first frame.
    neighbourhood_radius: int = 12
    """Largest distance (Chebyshev, in patches) from which a patch takes labels; 0: no limit."""
    topk: int = 5
    """Source patches that vote for a target patch, over all context frames jointly; more where the last place is tied."""
    temperature: float = 0.1
    """Similarities are divided by this before the exponential; at least 1/80, below which that is no number of float32."""
    short_side: int = 480  # Shorter side in pixels of the frames that the backbone sees.
    round_up: bool = False
    """Round both sides of a frame up to what the backbone takes, as in DINOv3's evaluation, and not the long side down to a multiple
    of 64, which patches of 14 pixels do not fit."""
    block: int | None = None
    """0-based block (ViT) or stage (Swin, ResNet) whose output serves as features, without the final norm; not given: the last one's,
    after the final norm where the backbone has one."""

    def __post_init__(self) -> None:
        for name, least in (("n_last_frames", 0), ("neighbourhood_radius", 0), ("topk", 1), ("short_side", 64)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not self.temperature >= LOWEST_TEMPERATURE:
            raise ValueError(
                f"temperature={self.temperature} must be at least {LOWEST_TEMPERATURE}: exp(1 / temperature) overflows"
            )
        if self.block is not None and self.block < 0:
            raise ValueError(f"block={self.block} must be at least 0")

    @property
    def quirks(self) -> Quirks:
        quirks = PUBLISHED if self.protocol == "published" else FIXED
        return dataclasses.replace(quirks, long_side_multiple=None) if self.round_up else quirks


def propagation_settings(config: PropagationSettings) -> dict[str, Any]:
    """The settings' own fields of a config that extends them, and the quirks they imply; JSON-ready."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(PropagationSettings)}
    if not config.round_up:
        del fields["round_up"]  # so that the results of runs without it are those of the same inputs as ever
    return {**fields, **dataclasses.asdict(config.quirks)}


def deviations(config: PropagationSettings) -> dict[str, list[Any]]:
    """Settings that differ from the published protocol: name -> [published, used]."""
    published = propagation_settings(PropagationSettings())
    used = propagation_settings(config)
    return {name: [published.get(name), value] for name, value in used.items() if value != published.get(name)}
