"""The options of the depth task."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Predict depth by a linear layer on a frozen backbone's patches; every default is the published protocol's (DINOv3's)."""

    backbone: Path  # Backbone file to evaluate.
    data: Path
    """Folder with nyu_train.txt and nyu_test.txt, whose lines are `image depth focal-length`, and the files that they name."""
    output: Path
    """Folder for result.json, the head and the metrics of every image. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    iterations: int = 38_400  # Updates of the weights; both warm-ups shrink with them.
    learning_rate: float = 3e-4  # By the schedule, three quarters of it are reached.
    batch_size: int = 16  # Images per update, over all processes; even, since the loss is one of two images.
    crop: list[int] = field(default_factory=lambda: [416, 544])  # Height and width of training crops in pixels.
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the frozen backbone computes in; the published protocol uses float32, the head always does."""
    draw_images: int = 8
    """Test images, spread evenly, that are drawn beside their true and predicted depth into OUTPUT/predictions; 0 draws none."""
    checkpoint_interval: int = 1000  # Updates between two records of the progress, from which an interrupted run continues.
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Seed of weights, order, and everything random about the training images.

    def __post_init__(self) -> None:
        least = {"iterations": 1, "batch_size": 2, "checkpoint_interval": 1, "draw_images": 0, "workers": 0, "seed": 0}
        require_at_least(self, least)
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed} must be at most {2**32 - 1}")
        if self.batch_size % 2:
            raise ValueError(f"batch_size={self.batch_size} must be even: the loss is the mean of losses of two images each")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate} must be positive")
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise ValueError(f"crop={self.crop} must be a height and a width in pixels, such as --crop 416 544")
