"""The options of copy detection."""

from dataclasses import dataclass
from pathlib import Path

from eval.shared import require_at_least


@dataclass(frozen=True, kw_only=True)
class CopyDetectionConfig:
    """Find the originals of Copydays' edited images; every default is DINO's, who also whiten and add distractors."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path  # Copydays: a folder with `original`, `strong` and, if their metrics are wanted, `crops/*` and `jpegqual/*`.
    output: Path
    """Folder for result.json, descriptors and the precision of strong changes. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    whitening: Path | None = None
    """Folder of images at any depth by which descriptors are whitened. DINO took 20,000 of YFCC100M, which are not published."""
    distractors: Path | None = None  # Folder of images at any depth that are searched too; DINO took 10,000 of YFCC100M.
    image_size: int = 320  # Side in pixels of the square to which images are squeezed.
    cache: Path | None = None
    """Folder for descriptors, which other runs on the same backbone and images use too; by default OUTPUT/features."""
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Recorded in the result; nothing in this task is random.

    def __post_init__(self) -> None:
        require_at_least(self, {"image_size": 1, "workers": 0, "seed": 0})
