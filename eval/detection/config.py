"""The options of the detection task."""

from dataclasses import dataclass
from pathlib import Path

from eval.openmmlab.launch import Precision
from eval.openmmlab.options import FineTuningConfig

PUBLISHED_SHORT_SIDE = 800
"""Of test images; training images have 480 to 800."""


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(FineTuningConfig):
    """Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's."""

    data: Path
    """The folder with annotations, train2017 and val2017."""
    precision: Precision = "auto"
    """Of training; `auto` is bfloat16 on a GPU that has it, else float16 (published), and float32 on the CPU. Tests are float32."""
    batch_size: int = 8
    """Images per update, over all devices."""
    device_batch_size: int = 8
    """Most images at a time on one device. Smaller values need less memory: the gradients of several parts then make up the
    batch, but batch normalisation sees fewer images at a time."""
    num_heads: int | None = None
    """Attention heads instead of those that the backbone file states. The published config fine-tunes with 8 a ViT-S that was
    pretrained with 6, apparently by mistake: 8 repeats that."""
    epochs: float = 12
    """Passes over the training images; the learning rate falls after 8/12 and 11/12 of them."""
    iterations: int | None = None
    """Updates of the weights, instead of epochs."""
    short_side: int = PUBLISHED_SHORT_SIDE
    """Short side of test images in pixels. All other sizes (480 to 800 in training, the limit of 1333, the crop of 384 to 600) keep
    their ratio to it."""

    def __post_init__(self) -> None:
        """Reject values that cannot make a run."""
        super().__post_init__()
        self.require_at_least(1, "iterations", "short_side")
        if not self.epochs > 0:
            raise ValueError(f"epochs={self.epochs} must be positive")
