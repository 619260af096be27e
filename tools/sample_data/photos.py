"""A folder of photographs to pretrain on: crops, one sub-folder per subject."""

from pathlib import Path

import numpy as np

from tools.sample_data.images import write_jpeg
from tools.sample_data.photographs import COLOUR_PHOTOGRAPHS, read_photograph, scale_part

SHORT_SIDE = (128, 224)
"""Smallest and largest short side of a crop in pixels."""
CROP_SCALE = (0.45, 1.0)
"""Short side of a crop over that of its photograph."""
ASPECT = (0.75, 4 / 3)
"""Width over height."""


def draw_photos(root: Path, rng: np.random.Generator, count: int) -> None:
    """Write `root/<subject>/<number>.jpg`.

    Args:
        root: The new folder.
        rng: Chooses the crops and their sizes.
        count: Crops per subject.
    """
    for subject, file_name in COLOUR_PHOTOGRAPHS.items():
        photograph = read_photograph(file_name)
        for number in range(count):
            write_jpeg(root / subject / f"{number:04d}.jpg", draw_crop(photograph, rng))


def draw_crop(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop of a photograph, scaled, and mirrored every other time; uint8 [H, W, 3]."""
    height, width = photograph.shape[:2]
    aspect = rng.uniform(*ASPECT)
    # The largest box of this aspect inside the photograph.
    box_height = min(height, width / aspect) * rng.uniform(*CROP_SCALE)
    box_width = box_height * aspect
    left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
    scale = rng.uniform(*SHORT_SIDE) / min(box_width, box_height)
    size = (round(box_width * scale), round(box_height * scale))
    box = (left, top, left + box_width, top + box_height)
    crop = scale_part(photograph, box, size)
    return crop[:, ::-1] if rng.random() < 0.5 else crop
