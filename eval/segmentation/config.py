"""The options of the segmentation task."""

from dataclasses import dataclass, field
from pathlib import Path

from eval.openmmlab.launch import DeviceChoice, Precision

NUM_MAPS = 4
"""The feature pyramid takes four maps."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Fine-tune Semantic FPN on ADE20K and measure mIoU, aAcc and mAcc; every default is the published protocol's."""

    backbone: Path
    """Backbone file to evaluate."""
    data: Path
    """The folder ADEChallengeData2016, with images/ and annotations/."""
    output: Path
    """Folder for result.json, checkpoints and logs. The same command line continues an interrupted run."""
    name: str = ""
    """Name of the row in the tables; by default the backbone file's."""
    seed: int = 0
    """Seed of the new layers, the order of the images and their augmentation."""
    device: DeviceChoice = "auto"
    """`auto` is the GPU where there is one."""
    precision: Precision = "float32"
    """Of training; the published run states none. Tests are always float32."""
    workers: int = 4
    """Processes that load images; 0 loads in the main process."""
    device_batch_size: int = 16
    """Most images at a time on one device. Smaller values need less memory: the gradients of several parts then make up the
    batch, but batch normalisation sees fewer images at a time."""
    taps: list[int] | None = None
    """0-based blocks whose outputs are the four maps, such as [2,5,8,11] (published, for 12 blocks); by default the same parts of
    the depth."""
    num_heads: int | None = None
    """Attention heads instead of those that the backbone file states."""
    iterations: int = 40_000
    """Updates of the weights."""
    warmup_iterations: int | None = None
    """Updates during which the learning rate rises; by default 1500, but at most a tenth of all."""
    batch_size: int = 16
    """Images per update, over all devices."""
    crop: int = 512
    """Side of the square training crop in pixels."""
    train_short_side: int = 512
    """Before cropping, images are resized to this short side (long side at most four times as much) times 0.5 to 2."""
    test_short_side: int = 512
    """Short side in pixels at which whole images are tested (long side at most four times as much)."""
    decay_norm: bool = True
    """Whether weight decay also acts on LayerNorm and BatchNorm. In the published run it does, against its file's intention: the
    name that should exempt them matches nothing there. False exempts them."""
    max_train_images: int | None = None
    """Train only on the first so many images by name."""
    max_val_images: int | None = None
    """Test only on the first so many images by name."""
    checkpoint_interval: int = 1_000
    """Updates between checkpoints."""
    override: list[str] = field(default_factory=list)
    """Any other value of the MMSegmentation config, as in --override '["model.decode_head.dropout_ratio=0"]', or one by one with
    --override+ key=value."""

    def __post_init__(self) -> None:
        """Reject values that cannot make a run."""
        positive = ("device_batch_size", "num_heads", "iterations", "batch_size", "crop", "train_short_side", "test_short_side")
        for name in (*positive, "max_train_images", "max_val_images", "checkpoint_interval"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name in ("workers", "warmup_iterations"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}={value} must be at least 0")
        if self.warmup_iterations is not None and self.warmup_iterations > self.iterations:
            raise ValueError(f"warmup_iterations={self.warmup_iterations} exceeds iterations={self.iterations}")
        if self.taps is not None and len(self.taps) != NUM_MAPS:
            raise ValueError(f"taps={self.taps}: the feature pyramid takes {NUM_MAPS} maps")
