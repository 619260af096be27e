"""The options of the JHMDB task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

ProtocolName = Literal["cropmae", "crw"]


@dataclass(frozen=True, kw_only=True)
class JhmdbConfig:
    """Carry the joints of the first frames through the videos of JHMDB and measure PCK; every default is the published protocol's."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path  # JHMDB folder: joint_positions, Rename_Images, splits.
    output: Path
    """Folder for result.json and joints. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    protocol: ProtocolName = "cropmae"
    """`cropmae`: temperature .7, top-k 7, radius 20, joints from the best 5 cells; `crw`: videowalk's own .07, 10, 12 and 3."""
    video_list: Path | None = None
    """Another list of videos than the test videos of split 1: lines that end in CLASS/VIDEO, as CropMAE's jhmdb_vallist.txt."""
    round_up: bool = False
    """Round the 320 pixels of both sides up to what the backbone takes; patches of 14 pixels do not fit them."""
    block: int | None = None
    """0-based block (ViT) or stage (Swin, ResNet) whose output serves as features, without the final norm; not given: the last one's,
    after the final norm where the backbone has one."""
    overlays: bool = False
    """Whether to draw true and found joints over the frames as PNG files too, about a hundred kilobytes per frame."""
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Recorded in the result; nothing in this task is random.

    def __post_init__(self) -> None:
        require_at_least(self, {"seed": 0, "block": 0})
