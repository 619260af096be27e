"""The options of the VIP task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

ProtocolName = Literal["cropmae", "crw"]


@dataclass(frozen=True, kw_only=True)
class VipConfig:
    """Carry the parts of persons in the first frames through the videos of VIP and measure mIoU; every default is published."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path  # VIP_Fine folder: Images, Annotations/Category_ids, lists.
    output: Path
    """Folder for result.json, masks and the pixels of every video. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    protocol: ProtocolName = "cropmae"
    """`cropmae`: long side 880, temperature .7, top-k 10, radius 20; `crw`: videowalk's own .07, 10 and 12, with long side 560."""
    video_list: Path | None = None
    """Another list than lists/val_videos.txt: lines that end in the name of a video, as CropMAE's vip_vallist.txt."""
    round_up: bool = False
    """Round both sides of a frame up to what the backbone takes; patches of 14 pixels do not fit the published sizes."""
    block: int | None = None
    """0-based block (ViT) or stage (Swin, ResNet) whose output serves as features, without the final norm; not given: the last one's,
    after the final norm where the backbone has one."""
    overlays: bool = False
    """Whether to write the masks over the frames as PNG files too, about a megabyte per frame."""
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    jobs: int = 0  # Processes that score; 0: one per core.
    seed: int = 0  # Recorded in the result; nothing in this task is random.

    def __post_init__(self) -> None:
        require_at_least(self, {"jobs": 0, "seed": 0, "block": 0})
