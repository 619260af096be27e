"""The options that every fine-tuning task has."""

import math
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
    batch_size: int | None = None
    """Images per update, over all devices; by default the published number for the backbone's family."""
    device_batch_size: int | None = None
    """Most images at a time on one device; by default as many as it takes, or, of a network without batch normalisation, the
    published number. Smaller values need less memory: the gradients of several parts then make up the batch, but batch
    normalisation sees fewer images at a time."""
    scale_lr: bool = False
    """Multiply the learning rate by `batch_size` / published batch size. Without, another batch size keeps the published rate."""
    compile: bool = False
    """Run the backbone through torch.compile, which takes minutes at first and needs a C++ compiler. On a CPU its steps were 1 %
    faster; on a GPU nobody has measured it here."""
    taps: list[int] | None = None
    """0-based blocks of a ViT whose outputs are the four maps; by default the published ones for 12 blocks, and the same parts of
    any other depth. A Swin or ResNet gives a map per stage."""
    num_heads: int | None = None
    """Attention heads instead of those that the backbone file states (ViT)."""
    warmup_iterations: int | None = None
    """Updates during which the learning rate rises; by default the published number, but at most a tenth of all."""
    max_images: int | None = None
    """Train and test only on the first so many images each."""
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
            1,
            "batch_size",
            "device_batch_size",
            "num_heads",
            "max_images",
            "max_train_images",
            "max_val_images",
            "checkpoint_interval",
        )
        self.require_at_least(0, "workers", "warmup_iterations", "draw_images")
        if self.taps is not None and len(self.taps) != NUM_MAPS:
            raise ValueError(f"taps={self.taps}: the feature pyramid takes {NUM_MAPS} maps")

    def plan_batch(self, published: BatchPlan, world_size: int, shares_statistics: bool = True) -> BatchPlan:
        """How so many processes make up the batch.

        Args:
            published: From `eval.openmmlab.batch.published_batch`; gives the total where the user does not.
            world_size: Number of processes.
            shares_statistics: Whether batch normalisation wants as many images at a time as possible; otherwise the published number
                goes through the network together.

        Raises:
            ValueError: If they cannot.
        """
        total = self.batch_size or published.total
        share = max(1, total // world_size)
        per_device = self.device_batch_size or (share if shares_statistics else math.gcd(published.per_device, share))
        return BatchPlan(total=total, per_device=min(per_device, share), world_size=world_size)

    @property
    def image_limits(self) -> tuple[int | None, int | None]:
        """Most training and validation images; None: all."""
        return self.max_train_images or self.max_images, self.max_val_images or self.max_images

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
