"""What is watched, and how often."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class WatchConfig:
    """Looking at training; without influence on it."""

    every: int = 10
    """Epochs between pictures, curves and k-NN, which also come after the last epoch; 0 for none of them."""
    images: Path | None = None
    """Folder whose first images are drawn; none: images from all over the training data."""
    num_images: int = 4
    """How many images are drawn."""
    knn_train: Path | None = None
    """Folder with a folder of images per class, the labelled neighbours of an online k-NN with the teacher's backbone; its features
    are held in memory by every process: for ImageNet take a part."""
    knn_val: Path | None = None
    """Folder with a folder of images per class: those that the k-NN classifies."""

    def __post_init__(self) -> None:
        """Reject values without meaning, and options without effect."""
        if self.every < 0 or self.num_images < 1:
            raise ValueError(f"watch.every={self.every} must not be negative, watch.num_images={self.num_images} be at least 1")
        if (self.knn_train is None) != (self.knn_val is None):
            raise ValueError("watch.knn_train and watch.knn_val come together: neighbours, and what they classify")
        idle = [name for name in ("images", "knn_train") if getattr(self, name) is not None]
        if not self.every and idle:
            raise ValueError(f"watch.{idle[0]} has no effect with watch.every: 0")
