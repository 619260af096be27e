"""The options of linear segmentation."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

ProtocolName = Literal["dinov3", "dinov2", "neco"]


@dataclass(frozen=True, kw_only=True)
class LinearSegmentationConfig:
    """Segment images by a linear layer on a frozen backbone's patches; every default is the named protocol's."""

    backbone: Path  # Backbone file to evaluate.
    data: Path  # ADEChallengeData2016, VOCdevkit/VOC2012, cityscapes or cocostuff; the folder's content says which data set it is.
    output: Path  # Folder for result.json, the heads and the counts. The same command line continues an interrupted run.
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    protocol: ProtocolName = "dinov3"
    """`dinov3` and `dinov2` (`lin.`) score whole images, `neco` squares of 100 x 100; figures of one are not those of another."""
    train_split: str = ""
    """Split to train on, such as VOC's `trainaug`; by default `trainaug` for VOC under `neco`, the set's own training split else."""
    learning_rates: list[float] = field(default_factory=list)
    """Learning rates, all trained in one pass; the first gives the metrics, the others stand beside it. By default the published."""
    layers: list[str] = field(default_factory=lambda: ["last"])
    """Features, all in one pass with every rate; the first gives the metrics. `last`, a 0-based block, or several blocks to be
    concatenated, such as `8+9+10+11`; each with the backbone's final norm."""
    iterations: int | None = None
    """Updates of the weights; by default the published 40,000, and 25 passes over the training images for `neco`, whose rate
    drops after four fifths of them."""
    batch_size: int | None = None  # Images per update, over all processes; by default the published 16, and 128 for `neco`.
    size: int | None = None
    """Short side of images, side of crops and windows in pixels (`neco`: of squares); by default 512, or 448."""
    evaluate_every: int | None = None
    """Updates between two tests; by default the published 5,000 for `dinov3`, one pass for `neco`, and 10,000 for `dinov2`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the frozen backbone computes in; the published protocols use float32, heads always do."""
    draw_images: int = 8
    """Test images, spread evenly, that are drawn beside truth and prediction into OUTPUT/predictions; 0 draws none."""
    checkpoint_interval: int = 1000  # Updates between two records of the progress, from which an interrupted run continues.
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Seed of weights, order, crops and dropout.

    def __post_init__(self) -> None:
        positive = dict.fromkeys(("iterations", "batch_size", "evaluate_every", "checkpoint_interval"), 1)
        require_at_least(self, {**positive, "size": 16, "draw_images": 0, "workers": 0, "seed": 0})
        for name, most in {"size": 4096, "seed": 2**32 - 1}.items():
            if (value := getattr(self, name)) is not None and value > most:
                raise ValueError(f"{name}={value} must be at most {most}")
        if not all(0 < rate < math.inf for rate in self.learning_rates):
            raise ValueError(f"learning_rates={self.learning_rates} must be positive")
        for option in ("learning_rates", "layers"):
            values = getattr(self, option)
            if len(set(values)) != len(values) or (option == "layers" and not values):
                raise ValueError(f"{option}={values} must name at least one value, and none twice")
