"""Grids of pictures under their titles, and how they are written.

Shapes: H x W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from common.files import write_atomically

PANEL_INCHES = 2.1
DOTS_PER_INCH = 110

Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB."""


def panel_grid(rows: int, columns: int, title: str, inches: float = PANEL_INCHES) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure of rows x columns square panels without axes under a title, and its panels [rows, columns]."""
    figure = Figure(figsize=(inches * columns, inches * rows + 0.6), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=10, wrap=True)
    grid: npt.NDArray[np.object_] = figure.subplots(rows, columns, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    return figure, grid


def head_columns(grid: npt.NDArray[np.object_], titles: Sequence[str]) -> None:
    """Titles over the columns of a grid."""
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)


def show(axes: Axes, picture: Picture) -> None:
    """A picture whose coordinates are its own pixels, from the top left corner."""
    height, width = picture.shape[:2]
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")


def write_figure(figure: Figure, path: Path) -> Picture:
    """Write a figure as PNG, atomically; returns its pixels.

    Raises:
        OSError: If it cannot be written.
    """
    write_atomically(path, figure.savefig)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
