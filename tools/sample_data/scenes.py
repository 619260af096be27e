"""Backgrounds with exact labels: a wall or the sky above, a ground below, parted by a sloping line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.sample_data.photographs import read_photograph, scale_part


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A uniform part of a photograph."""

    file_name: str
    """The photograph."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the part in pixels."""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors on red, green and blue: the textures that scikit-image ships are grey."""


UPPER = {
    "sky": Surface(file_name="rocket.jpg", box=(95, 0, 535, 118)),
    "wall": Surface(file_name="brick.png", box=(0, 0, 512, 512), tint=(1.0, 0.72, 0.6)),
}
LOWER = {
    "grass": Surface(file_name="grass.png", box=(0, 0, 512, 512), tint=(0.75, 1.0, 0.45)),
    "earth": Surface(file_name="gravel.png", box=(0, 0, 512, 512), tint=(1.0, 0.85, 0.65)),
    "table": Surface(file_name="coffee.png", box=(488, 0, 600, 400)),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background."""

    image: np.ndarray
    """uint8 [H, W, 3]."""
    upper: str
    """Name of what is above, a key of `UPPER`."""
    lower: str
    """Name of what is below, a key of `LOWER`."""
    lower_mask: np.ndarray
    """bool [H, W]: where it is `lower`."""


def _cover(surface: Surface, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random part of a surface, scaled to [height, width, 3], uint8."""
    left, top, right, bottom = surface.box
    # The largest part of the wanted shape, times 0.5 to 1.
    largest = min((right - left) / width, (bottom - top) / height)
    part = largest * rng.uniform(0.5, 1.0)
    x = left + rng.uniform(0, (right - left) - part * width)
    y = top + rng.uniform(0, (bottom - top) - part * height)
    box = (x, y, x + part * width, y + part * height)
    pixels = scale_part(read_photograph(surface.file_name), box, (width, height))
    return (pixels * np.array(surface.tint)).round().astype(np.uint8)


def draw_scene(rng: np.random.Generator, width: int, height: int, lower: Sequence[str] = tuple(LOWER)) -> Scene:
    """Draw a background.

    Args:
        rng: Chooses the surfaces, their parts and the line between them.
        width: In pixels.
        height: In pixels.
        lower: Which grounds may appear.
    """
    upper_name = str(rng.choice(list(UPPER)))
    lower_name = str(rng.choice(list(lower)))
    left_height, right_height = rng.uniform(0.45, 0.7, size=2) * height
    horizon_W = np.linspace(left_height, right_height, width)
    lower_mask = np.arange(height)[:, None] >= horizon_W[None, :]
    above, below = (_cover(surface, rng, width, height) for surface in (UPPER[upper_name], LOWER[lower_name]))
    image = np.where(lower_mask[:, :, None], below, above)
    return Scene(image=image, upper=upper_name, lower=lower_name, lower_mask=lower_mask)
