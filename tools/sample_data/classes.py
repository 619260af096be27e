"""A labelled set in ImageNet's layout: crops of the photographs, one class per subject."""

from pathlib import Path

import numpy as np

from tools.sample_data.images import write_jpeg
from tools.sample_data.photographs import COLOUR_PHOTOGRAPHS, read_photograph
from tools.sample_data.photos import draw_crop


def draw_classes(root: Path, rng: np.random.Generator, count: int) -> None:
    """Write `root/{train,val}/<subject>/<number>.jpg`.

    Args:
        root: The new folder, `imagenet`.
        rng: Chooses the crops and their sizes.
        count: Training images per subject; half as many, rounded up, to classify.
    """
    for subject, file_name in COLOUR_PHOTOGRAPHS.items():
        photograph = read_photograph(file_name)
        for split, images in (("train", count), ("val", (count + 1) // 2)):
            for number in range(images):
                write_jpeg(root / split / subject / f"{number:04d}.jpg", draw_crop(photograph, rng))
