"""The options of image retrieval."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

ProtocolName = Literal["dino", "ibot"]


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Find the landmarks of revisited Oxford5k or Paris6k; every default is the published protocol's."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path  # roxford5k or rparis6k: a folder with the images in `jpg` and gnd_roxford5k.pkl or gnd_rparis6k.pkl.
    output: Path
    """Folder for result.json, features and the metrics of every query. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    protocol: ProtocolName = "dino"
    """`dino`: Oxford at 224 pixels, Paris at 512 in three scales; `ibot`: both at 512 pixels in three scales."""
    image_size: int | None = None  # Longest side in pixels to which images are shrunk; by default the protocol's.
    multiscale: bool | None = None  # Whether features are the mean over scales 1, 0.71 and 0.5; by default the protocol's.
    distractors: Path | None = None
    """Folder of images at any depth that are searched too and are never right, such as the million of R1M."""
    cache: Path | None = None
    """Folder for extracted features, which other runs on the same backbone and images use too; by default OUTPUT/features."""
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Recorded in the result; nothing in this task is random.

    def __post_init__(self) -> None:
        require_at_least(self, {"image_size": 1, "workers": 0, "seed": 0})
