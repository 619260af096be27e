"""The options of dense retrieval."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

ProtocolName = Literal["hummingbird", "hummingbird-fixed", "capi-knn"]


@dataclass(frozen=True, kw_only=True)
class RetrievalSegmentationConfig:
    """Segment images by the labels of the most similar patches of training images; every default is the published protocol's."""

    backbone: Path  # Backbone file to evaluate.
    data: Path  # VOCdevkit/VOC2012, ADEChallengeData2016, cityscapes or cocostuff; the folder's content says which data set it is.
    output: Path
    """Folder for result.json, pictures and patches. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    protocol: ProtocolName = "hummingbird"
    """`hummingbird`: as open-hummingbird-eval, with its quirks; `hummingbird-fixed`: without them; `capi-knn`: CAPI's patch k-NN."""
    memory_size: int | None = None
    """Patches that hummingbird remembers: 102400 (the default), 1024000 and 10240000 have published values."""
    augmentation_epochs: int | None = None  # Random views of each training image that hummingbird remembers; by default 2.
    neighbours: int | None = None
    """Patches that vote under hummingbird; by default 30. CAPI's rule chooses their number itself."""
    temperature: float | None = None
    """A neighbour's weight under hummingbird is a softmax of cosine / temperature; by default 0.02."""
    input_size: int | None = None
    """Side of the square input in pixels; by default 512 (hummingbird) or 224, or the next multiple of the patch size below."""
    search: Literal["torch", "faiss"] = "torch"
    """What finds the nearest patches, on a GPU where there is one (`torch`) or on the CPU by faiss; both find the same ones."""
    pictures: int = 4  # Test images that are drawn with truth, prediction and the patches that voted.
    cache: Path | None = None
    """Folder for stored patches, which other runs on the same backbone and data use too; by default OUTPUT/patches."""
    batch_size: int = 16  # Images per forward pass.
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Seed of the views, of the patches that are remembered, and of what CAPI's rule holds out.

    def __post_init__(self) -> None:
        hummingbird = ("memory_size", "augmentation_epochs", "neighbours", "temperature")
        if self.protocol == "capi-knn" and (given := [name for name in hummingbird if getattr(self, name) is not None]):
            raise ValueError(f"{given[0]} has no effect under --protocol capi-knn; leave it out")
        least = dict.fromkeys(("memory_size", "augmentation_epochs", "neighbours", "input_size", "batch_size"), 1)
        require_at_least(self, {**least, "pictures": 0, "workers": 0, "seed": 0})
        if self.input_size is not None and self.input_size > 4096:
            raise ValueError(f"input_size={self.input_size} must be at most 4096")
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed} must be at most {2**32 - 1}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be positive")
