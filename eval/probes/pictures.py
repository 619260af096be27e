"""Panels that show what a probe predicts.

Shapes: S x S pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.images import IMAGENET_MEAN


def rgb_panel(pixels_3SS: Tensor, std: Sequence[float]) -> Image.Image:
    """An image that was normalised with ImageNet's mean and this deviation."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, std))
    levels = (pixels_3SS * deviation + mean).clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def label_panel(labels_SS: Tensor, num_classes: int) -> Image.Image:
    """Each class in a colour of its own, class 0 in black, pixels without any class in grey."""
    table = np.random.default_rng(0).integers(64, 256, (256, 3), dtype=np.uint8)
    table[0], table[num_classes:] = 0, 128
    return Image.fromarray(table[labels_SS.numpy()])


def sheet(panels: Sequence[Image.Image], columns: int, width: int) -> Image.Image:
    """Panels in rows of so many, each resized to a square."""
    page = Image.new("RGB", (columns * width, -(-len(panels) // columns) * width))
    for index, panel in enumerate(panels):
        page.paste(panel.resize((width, width)), (index % columns * width, index // columns * width))
    return page
