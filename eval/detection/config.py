"""The options of the detection task. Loads neither torch nor OpenMMLab."""

from dataclasses import dataclass
from pathlib import Path

from eval.openmmlab.options import FineTuningConfig, Precision
from eval.shared import require_at_least

PUBLISHED_SHORT_SIDE = 800
"""Short side of test images; training images have 480 to 800, those of a ResNet 640 to 800."""


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(FineTuningConfig):
    """Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's."""

    data: Path  # The folder with annotations, train2017 and val2017.
    precision: Precision = "auto"
    """Precision of training; `auto` is half precision on a GPU where it is published (ViT, Swin): bfloat16 where the GPU has it, else
    float16. It is float32 for a ResNet and on the CPU. Tests are float32."""
    num_heads: int | None = None
    """Attention heads instead of those that the backbone file states. The released configuration fine-tunes with 8 a ViT-S that was
    pretrained with 6, apparently by mistake: 8 repeats that, and any other number is recorded as a deviation."""
    epochs: float | None = None
    """Passes over the training images; by default the published length, 12 epochs (ViT, Swin) or 90,000 iterations (ResNet). The
    learning rate falls at the same parts of any length."""
    iterations: int | None = None  # Updates of the weights, instead of epochs.
    short_side: int = PUBLISHED_SHORT_SIDE
    """Short side of test images in pixels. All other sizes (of training images, the limit of 1333, the crop of 384 to 600) keep their
    ratio to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, {"iterations": 1, "short_side": 1})
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"epochs={self.epochs} must be positive")
        if self.epochs is not None and self.iterations is not None:
            raise ValueError(f"epochs={self.epochs} and iterations={self.iterations} both state the length; give one of them")
