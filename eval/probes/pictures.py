"""Pictures that show what a probe predicts.

Shapes: H x W pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from common.files import write_atomically
from common.images import IMAGENET_MEAN, evenly


def draw_pictures(
    names: Sequence[str], count: int, folder: Path, draw: Callable[[Sequence[int]], Iterable[Image.Image]]
) -> dict[str, str]:
    """Draw so many images, spread evenly, by their indices, each into a PNG of its name; the artefacts that these are."""
    artefacts, indices = {}, evenly(range(len(names)), count)
    for index, picture in zip(indices, draw(indices), strict=True):
        path = folder / f"{names[index]}.png"
        write_atomically(path, partial(picture.save, format="PNG"))
        artefacts[f"prediction on {names[index]}"] = f"{folder.name}/{names[index]}.png"
    return artefacts


def rgb_panel(pixels_3HW: Tensor, std: Sequence[float]) -> Image.Image:
    """An image that was normalised with ImageNet's mean and this deviation."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, std))
    levels = (pixels_3HW * deviation + mean).clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def label_panel(labels_HW: Tensor, num_classes: int) -> Image.Image:
    """Each class in a colour of its own, class 0 in black, pixels without any class in grey."""
    table = np.random.default_rng(0).integers(64, 256, (256, 3), dtype=np.uint8)
    table[0], table[num_classes:] = 0, 128
    return Image.fromarray(table[labels_HW.numpy()])


def sheet(panels: Sequence[Image.Image], columns: int, size: tuple[int, int]) -> Image.Image:
    """Panels in rows of so many, each resized to a size (width, height)."""
    width, height = size
    page = Image.new("RGB", (columns * width, -(-len(panels) // columns) * height))
    for index, panel in enumerate(panels):
        page.paste(panel.resize(size), (index % columns * width, index // columns * height))
    return page


def commonest_patch(truth: Tensor, patch: int, classes: int) -> tuple[int, int]:
    """Row and column in the middle of an image's commonest class: other than 0 where there is one, no class where there is none."""
    shown = truth[truth < classes] if (truth < classes).any() else truth
    shown = shown[shown > 0] if (shown > 0).any() else shown
    places = (truth == shown.mode().values).nonzero() // patch
    middle = (places - places.float().mean(0)).square().sum(1).argmin()
    row, column = places[middle].tolist()
    return row, column


def framed(image: Image.Image, row: int, column: int, patch: int) -> Image.Image:
    """The image itself, with a frame around a patch of so many pixels."""
    corners = (column * patch, row * patch, (column + 1) * patch, (row + 1) * patch)
    ImageDraw.Draw(image).rectangle(corners, outline="red", width=max(1, image.width // 112))
    return image
