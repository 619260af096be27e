"""Writing pictures, the same bytes every time."""

from pathlib import Path

import numpy as np
from PIL import Image

JPEG_QUALITY = 92
"""High enough that the border of a cut-out stays where its mask says."""


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W, 3]; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)


def write_grey_png(path: Path, labels: np.ndarray) -> None:
    """Write uint8 [H, W] as a grey PNG whose values are the labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def write_indexed_png(path: Path, ids: np.ndarray) -> None:
    """Write uint8 [H, W] of object ids as an indexed PNG with the palette of DAVIS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    image.putpalette(davis_palette())
    image.save(path)


def davis_palette() -> list[int]:
    """Red, green, blue of 256 entries, as the DAVIS annotations carry them (Pascal VOC's colours).

    The bits of an index, from the lowest, are dealt in turn to red, green and blue, each filled from its highest bit.
    """
    colours = []
    for index in range(256):
        colour = [0, 0, 0]
        for position in range(8):
            bit = index >> position & 1
            colour[position % 3] |= bit << (7 - position // 3)
        colours += colour
    return colours
