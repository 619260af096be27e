"""The options of the segmentation task. Loads neither torch nor OpenMMLab."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.openmmlab.options import FineTuningConfig
from eval.shared import require_at_least

Head = Literal["fpn", "upernet"]


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FineTuningConfig):
    """Fine-tune Semantic FPN or UperNet on ADE20K and measure mIoU, aAcc and mAcc; every default is the published protocol's."""

    data: Path  # The folder ADEChallengeData2016, with images/ and annotations/.
    head: Head = "fpn"
    """`fpn` is Semantic FPN; `upernet` (ViT only) is UperNet with four times as many updates, which has a table of its own."""
    iterations: int | None = None
    """Updates of the weights; by default the published 40,000 for Semantic FPN and 160,000 for UperNet."""
    crop: int = 512  # Side of the square training crop in pixels.
    train_short_side: int = 512
    """Before cropping, images are resized to this short side (long side at most four times as much) times 0.5 to 2."""
    test_short_side: int = 512
    """Short side in pixels at which whole images are tested (long side at most four times as much)."""
    decay_norm: bool | None = None
    """Whether weight decay also acts on LayerNorm and BatchNorm; by default as published. That is yes for a ViT and a ResNet: the
    ViT's file means to exempt them, but the name that should do so matches nothing there. A Swin's LayerNorms are exempt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, dict.fromkeys(("iterations", "crop", "train_short_side", "test_short_side"), 1))
        if self.warmup_iterations is not None and self.iterations is not None and self.warmup_iterations > self.iterations:
            raise ValueError(f"warmup_iterations={self.warmup_iterations} exceeds iterations={self.iterations}")
