"""The options of object discovery."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.shared import require_at_least

Method = Literal["lost", "tokencut"]


@dataclass(frozen=True, kw_only=True)
class ObjectDiscoveryConfig:
    """Find one object in each image by a ViT's patches, without any training; every default is the published protocol's."""

    backbone: Path  # Backbone file of a ViT.
    data: Path
    """VOC2007 or VOC2012 (JPEGImages, Annotations, ImageSets/Main/trainval.txt), or COCO 20k (train2014,
    annotations/instances_train2014.json, coco_20k_filenames.txt)."""
    output: Path
    """Folder for result.json, the boxes and drawings. The same command line continues an interrupted run."""
    name: str = ""  # Name of the row in the tables; by default the backbone file's.
    method: Method = "lost"
    """`lost`: the object grows from the patch with the fewest similar ones; `tokencut`: a graph of the patches is cut in two."""
    no_hard: bool = False
    """Whether to leave out objects of PASCAL VOC that are truncated or difficult, and images without others."""
    draw_images: int = 8
    """Images, spread evenly, that are drawn with the found box in red and the true ones in green into OUTPUT/predictions."""
    workers: int = 8  # Processes that decode images, per process of the run; 0: itself.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.
    seed: int = 0  # Recorded in the result; nothing in this task is random.

    def __post_init__(self) -> None:
        require_at_least(self, {"draw_images": 0, "workers": 0, "seed": 0})
