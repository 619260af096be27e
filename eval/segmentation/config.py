"""The options of the segmentation task."""

from dataclasses import dataclass
from pathlib import Path

from eval.openmmlab.options import FineTuningConfig


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FineTuningConfig):
    """Fine-tune Semantic FPN on ADE20K and measure mIoU, aAcc and mAcc; every default is the published protocol's."""

    data: Path
    """The folder ADEChallengeData2016, with images/ and annotations/."""
    iterations: int = 40_000
    """Updates of the weights."""
    crop: int = 512
    """Side of the square training crop in pixels."""
    train_short_side: int = 512
    """Before cropping, images are resized to this short side (long side at most four times as much) times 0.5 to 2."""
    test_short_side: int = 512
    """Short side in pixels at which whole images are tested (long side at most four times as much)."""
    decay_norm: bool = True
    """Whether weight decay also acts on LayerNorm and BatchNorm. In the published run it does, against its file's intention: the
    name that should exempt them matches nothing there. False exempts them."""

    def __post_init__(self) -> None:
        """Reject values that cannot make a run."""
        super().__post_init__()
        self.require_at_least(1, "iterations", "crop", "train_short_side", "test_short_side")
        if self.warmup_iterations is not None and self.warmup_iterations > self.iterations:
            raise ValueError(f"warmup_iterations={self.warmup_iterations} exceeds iterations={self.iterations}")
