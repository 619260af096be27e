"""The options that every fine-tuning task has."""

from dataclasses import dataclass, field
from pathlib import Path

from eval.openmmlab.batch import BatchPlan
from eval.openmmlab.launch import DeviceChoice, Precision

NUM_MAPS = 4
"""The feature pyramids take four maps."""

_WARMUP_PART = 10


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Fine-tune a head on a backbone and measure it; every default is the published protocol's."""

    backbone: Path
    """Backbone file to evaluate."""
    data: Path
    """Folder of the dataset."""
    output: Path
    """Folder for result.json, checkpoints and logs. The same command line continues an interrupted run."""
    name: str = ""
    """Name of the row in the tables; by default the backbone file's."""
    seed: int = 0
    """Seed of the new layers, the order of the images and their augmentation."""
    device: DeviceChoice = "auto"
    """`auto` is the GPU where there is one."""
    precision: Precision = "float32"
    """Of training; tests are always float32."""
    workers: int = 4
    """Processes that load images; 0 loads in the main process."""
    batch_size: int = 16
    """Images per update, over all devices."""
    device_batch_size: int = 16
    """Most images at a time on one device. Smaller values need less memory: the gradients of several parts then make up the
    batch, but batch normalisation sees fewer images at a time."""
    taps: list[int] | None = None
    """0-based blocks whose outputs are the four maps; by default the published ones for 12 blocks, and the same parts of any other
    depth."""
    num_heads: int | None = None
    """Attention heads instead of those that the backbone file states."""
    warmup_iterations: int | None = None
    """Updates during which the learning rate rises; by default the published number, but at most a tenth of all."""
    max_train_images: int | None = None
    """Train only on the first so many images."""
    max_val_images: int | None = None
    """Test only on the first so many images."""
    draw_images: int = 8
    """Validation images, spread evenly, whose predictions are drawn into OUTPUT/predictions; 0 draws none."""
    checkpoint_interval: int = 1000
    """Updates between checkpoints."""
    override: list[str] = field(default_factory=list)
    """Any other value of the OpenMMLab config, as in --override '["model.neck.out_channels=128"]', or one by one with
    --override+ key=value."""

    def __post_init__(self) -> None:
        """Reject values that cannot make a run."""
        self.require_at_least(
            1, "batch_size", "device_batch_size", "num_heads", "max_train_images", "max_val_images", "checkpoint_interval"
        )
        self.require_at_least(0, "workers", "warmup_iterations", "draw_images")
        if self.taps is not None and len(self.taps) != NUM_MAPS:
            raise ValueError(f"taps={self.taps}: the feature pyramid takes {NUM_MAPS} maps")

    def plan_batch(self, world_size: int) -> BatchPlan:
        """How so many processes make up the batch.

        Raises:
            ValueError: If they cannot.
        """
        per_device = min(self.device_batch_size, max(1, self.batch_size // world_size))
        return BatchPlan(total=self.batch_size, per_device=per_device, world_size=world_size)

    def warmup(self, published: int, iterations: int) -> int:
        """Updates of rising learning rate: what the user said, else the published number, at most a tenth of all."""
        if self.warmup_iterations is not None:
            return self.warmup_iterations
        return min(published, iterations // _WARMUP_PART)

    def require_at_least(self, least: int, *names: str) -> None:
        """Raise ValueError unless each of the named fields that is given is at least so large."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
