"""The options of the DAVIS task, and those that its other commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.propagation.protocol import PropagationSettings
from eval.shared import require_at_least

SetName = Literal["davis", "youtube-vos-2018", "youtube-vos-2019", "mose"]


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which sequences of a DAVIS folder, or of another set of videos."""

    dataset: SetName = "davis"  # Whose layout the folder has; objects of all but DAVIS may appear after the first frame.
    split: str = "val"
    """List in ImageSets, `all`: every folder of frames; of other sets than DAVIS the folder, such as train, and val is valid."""
    year: Literal["2016", "2017"] = "2017"  # Of DAVIS; 2016: all objects count as one.
    resolution: str = "480p"
    """Folder below JPEGImages and Annotations; `.` where sequences lie directly in them."""


@dataclass(frozen=True, kw_only=True)
class SequenceOptions(SplitOptions):
    """Some sequences of a DAVIS folder."""

    sequences: str = ""  # Only these sequences of the split, separated by commas.


@dataclass(frozen=True, kw_only=True)
class DavisConfig(SequenceOptions, PropagationSettings):
    """Propagate the first frames' masks through the videos of DAVIS and measure J&F; every default is the published protocol's."""

    backbone: Path  # Backbone file to evaluate, or a function `package.module:name` that returns a network.
    data: Path  # DAVIS folder: ImageSets, JPEGImages, Annotations.
    output: Path
    """Folder for result.json, masks and CSV files. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    jobs: int = 0  # Processes that score; 0: one per core.
    seed: int = 0  # Recorded in the result; nothing in this task is random.
    overlays: bool = False
    """Whether to write the masks over the frames as PNG files too, about a megabyte per frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, {"jobs": 0, "seed": 0})
