"""The options of classification."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

Classifier = Literal["knn", "linear"]


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Classify images by frozen features: weighted k-NN and a linear probe; every default is the published protocol's (DINO's)."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path
    """Folder with `train` and `val`, each with a folder per class (ImageNet, or any images), or with CIFAR's binary files."""
    output: Path
    """Folder for result.json, predictions and features. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    classes: str = ""
    """Only these class folders: `imagenet-100` (the list of Tian et al.), or a file with a folder name per line."""
    train_folder: str = "train"
    """Folder of the labelled training images below --data; without effect for CIFAR."""
    test_folder: str = "val"  # Folder of the images to classify below --data; without effect for CIFAR.
    classifiers: list[Classifier] = field(default_factory=lambda: ["knn", "linear"])
    """What to run: `knn`, `linear`, or both. k-NN takes one pass over the images, the probe about a hundred."""
    resize: int = 256  # Shorter side in pixels to which images are resized before the centre crop.
    crop: int = 224  # Side in pixels of the network's input.
    neighbours: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
    """Numbers of neighbours that vote; each gives metrics of its own."""
    temperature: float = 0.07  # A neighbour votes with exp(cosine / temperature).
    learning_rates: list[float] = field(default_factory=lambda: [0.001])
    """The probe's learning rates for a batch of 256, all in one pass; the first gives the metric, the others stand beside it."""
    epochs: int = 100  # The probe's passes over the training images.
    batch_size: int = 1024  # Images per step of the probe, over all processes.
    linear_blocks: int | None = None
    """Last blocks whose tokens the probe sees; by default 4 for ViT-S and narrower, 1 for ViT-B and wider and without a CLS token."""
    linear_mean_patch: bool | None = None
    """Whether the probe also sees the mean patch; by default for ViT-B and wider."""
    augment: bool = True
    """Random crops and flips for the probe: each epoch runs the backbone; `false`: train on stored features of centre crops."""
    cache: Path | None = None
    """Folder for extracted features, which other runs on the same backbone and data use too; by default OUTPUT/features."""
    extraction_batch_size: int = 128  # Images per forward pass where features are extracted once.
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Seed of the probe's weights, order and crops, and of the bootstrap.

    def __post_init__(self) -> None:
        positive = dict.fromkeys(("resize", "crop", "epochs", "batch_size", "linear_blocks", "extraction_batch_size"), 1)
        require_at_least(self, {**positive, "workers": 0, "seed": 0})
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed} must be at most {2**32 - 1}")
        if self.resize < self.crop:
            raise ValueError(f"resize={self.resize} is smaller than crop={self.crop}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be positive")
        for name in ("classifiers", "neighbours", "learning_rates"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name}={values} must name at least one value, and none twice")
        if min(self.neighbours) < 1:
            raise ValueError(f"neighbours={self.neighbours} must be at least 1")
        if not all(0 < rate < math.inf for rate in self.learning_rates):
            raise ValueError(f"learning_rates={self.learning_rates} must be positive")
        if self.train_folder == self.test_folder:
            raise ValueError(f"train_folder and test_folder are both {self.train_folder!r}; each image would find itself")
