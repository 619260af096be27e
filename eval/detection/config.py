"""The options of the detection task."""

from dataclasses import dataclass, field
from pathlib import Path

from eval.openmmlab.launch import DeviceChoice, Precision

NUM_MAPS = 4
"""The feature pyramid takes four maps."""

PUBLISHED_SHORT_SIDE = 800
"""Of test images; training images have 480 to 800."""


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's."""

    backbone: Path
    """Backbone file to evaluate."""
    data: Path
    """The folder with annotations, train2017 and val2017."""
    output: Path
    """Folder for result.json, checkpoints and logs. The same command line continues an interrupted run."""
    name: str = ""
    """Name of the row in the tables; by default the backbone file's."""
    seed: int = 0
    """Seed of the new layers, the order of the images and their augmentation."""
    device: DeviceChoice = "auto"
    """`auto` is the GPU where there is one."""
    precision: Precision = "auto"
    """Of training; `auto` is bfloat16 on a GPU that has it, else float16 (published), and float32 on the CPU. Tests are float32."""
    workers: int = 4
    """Processes that load images; 0 loads in the main process."""
    device_batch_size: int = 8
    """Most images at a time on one device. Smaller values need less memory: the gradients of several parts then make up the
    batch, but batch normalisation sees fewer images at a time."""
    taps: list[int] | None = None
    """0-based blocks whose outputs are the four maps, such as [3,5,7,11] (published, for 12 blocks); by default the same parts of
    the depth."""
    num_heads: int | None = None
    """Attention heads instead of those that the backbone file states. The published config fine-tunes with 8 a ViT-S that was
    pretrained with 6, apparently by mistake: 8 repeats that."""
    epochs: float = 12
    """Passes over the training images; the learning rate falls after 8/12 and 11/12 of them."""
    iterations: int | None = None
    """Updates of the weights, instead of epochs."""
    warmup_iterations: int | None = None
    """Updates during which the learning rate rises; by default 1000, but at most a tenth of all."""
    batch_size: int = 8
    """Images per update, over all devices."""
    short_side: int = PUBLISHED_SHORT_SIDE
    """Short side of test images in pixels. All other sizes (480 to 800 in training, the limit of 1333, the crop of 384 to 600) keep
    their ratio to it."""
    max_train_images: int | None = None
    """Train only on the first so many images of the annotation file that have annotations."""
    max_val_images: int | None = None
    """Test only on the first so many images of the annotation file."""
    checkpoint_interval: int = 1000
    """Updates between checkpoints."""
    override: list[str] = field(default_factory=list)
    """Any other value of the MMDetection config, as in --override '["model.test_cfg.rcnn.score_thr=0.01"]', or one by one with
    --override+ key=value."""

    def __post_init__(self) -> None:
        """Reject values that cannot make a run."""
        positive = ("device_batch_size", "num_heads", "epochs", "iterations", "batch_size", "short_side", "checkpoint_interval")
        for name in (*positive, "max_train_images", "max_val_images"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        for name in ("workers", "warmup_iterations"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}={value} must be at least 0")
        if self.taps is not None and len(self.taps) != NUM_MAPS:
            raise ValueError(f"taps={self.taps}: the feature pyramid takes {NUM_MAPS} maps")
