"""The options that every fine-tuning task has, and how the processes make up the batch. Loads neither torch nor OpenMMLab."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

Precision = Literal["auto", "float32", "bfloat16", "float16"]

NUM_MAPS = 4  # of the feature pyramids


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How processes, images per process and forward pass, and gradient accumulation make up the total batch of an update.

    The total, over all processes, is part of a protocol.
    """

    total: int
    per_device: int
    world_size: int

    def __post_init__(self) -> None:
        if self.total % (self.per_device * self.world_size):
            raise ValueError(
                f"the batch of {self.total} images cannot be split into {self.world_size} process(es) of {self.per_device} image(s) "
                "and whole accumulation steps; choose a per-device batch whose product with the number of processes divides it"
            )

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser update."""
        return self.total // (self.per_device * self.world_size)


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Fine-tune a head on a backbone and measure it; every default is the published protocol's."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path  # Folder of the data set.
    output: Path
    """Folder for result.json, checkpoints and logs. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    seed: int = 0  # Seed of the new layers, the order of the images and their augmentation.
    device: str = "auto"  # Device to run on: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    precision: Precision = "float32"  # Precision of training; tests are always float32.
    workers: int = 4  # Processes that load images; 0 loads in the main process.
    batch_size: int | None = None
    """Images per update, over all devices; by default the published number for the backbone's family."""
    device_batch_size: int | None = None
    """Most images at a time on one device; by default as many as it takes, or, of a network without batch normalisation, the
    published number. Smaller values need less memory: the gradients of several parts then make up the batch, but batch
    normalisation sees fewer images at a time."""
    scale_lr: bool = False
    """Multiply the learning rate by `batch_size` / published batch size. Without it, another batch size keeps the published rate."""
    compile: bool = False
    """Run the backbone through torch.compile, which takes minutes at first and needs a C++ compiler. On a CPU its steps were 1 %
    faster; on a GPU nobody has measured it here."""
    taps: list[int] | None = None
    """0-based blocks of a ViT whose outputs are the four maps; by default the published ones for 12 blocks, and the same parts of
    any other depth. A Swin or ResNet gives a map per stage; another network those of strides 4 to 32, or its nearest."""
    num_heads: int | None = None  # Attention heads instead of those that the backbone file states (ViT).
    no_class_token: bool = False
    """Leave out a ViT's CLS token. By default it stays, which is our choice: the released fine-tuning backbones have none, and nobody
    states how the rows of DINO, MoBY and MoCo-v3 were made."""
    warmup_iterations: int | None = None
    """Updates during which the learning rate rises; by default the published number, but at most a tenth of all."""
    max_images: int | None = None  # Train and test only on the first N images each.
    max_train_images: int | None = None  # Train only on the first N images.
    max_val_images: int | None = None  # Test only on the first N images.
    draw_images: int = 8
    """Validation images, spread evenly, whose predictions are drawn into OUTPUT/predictions; 0 draws none."""
    checkpoint_interval: int = 1000  # Updates between checkpoints.
    override: list[str] = field(default_factory=list)
    """Any other values of the OpenMMLab config, as in --override model.neck.out_channels=128 model.test_cfg.mode=whole."""

    def __post_init__(self) -> None:
        positive = ("batch_size", "device_batch_size", "num_heads", "checkpoint_interval")
        limits = ("max_images", "max_train_images", "max_val_images")
        require_at_least(self, dict.fromkeys((*positive, *limits), 1))
        require_at_least(self, dict.fromkeys(("workers", "warmup_iterations", "draw_images", "seed"), 0))
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed} must be at most {2**32 - 1}")
        if self.taps is not None and len(self.taps) != NUM_MAPS:
            raise ValueError(f"taps={self.taps}: the feature pyramid takes {NUM_MAPS} maps")

    def plan_batch(self, published: BatchPlan, world_size: int, shares_statistics: bool = True) -> BatchPlan:
        """Divide the user's batch, or the published run's, among the processes.

        As many images as possible go through the network together where batch normalisation shares their statistics; otherwise
        the published number.
        """
        total = self.batch_size or published.total
        share = max(1, total // world_size)
        per_device = self.device_batch_size or (share if shares_statistics else math.gcd(published.per_device, share))
        return BatchPlan(total=total, per_device=min(per_device, share), world_size=world_size)

    @property
    def image_limits(self) -> tuple[int | None, int | None]:
        """Most training and validation images; None for all."""
        return self.max_train_images or self.max_images, self.max_val_images or self.max_images
