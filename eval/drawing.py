"""What the images that several tasks draw have in common: labels over an image, panels under their titles.

Shapes: H x W pixels, K colours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB."""

CAPTION_HEIGHT = 16
"""Pixels above each panel for its title."""

_OPACITY = 0.5


def read_image(path: Path) -> Picture:
    """Decode an image as it is stored.

    Raises:
        ValueError: If the file is missing or damaged; names it.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such image") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: damaged image ({error})") from error


def overlay(picture: Picture, labels_HW: npt.NDArray[np.integer], palette_K3: npt.NDArray[np.uint8]) -> Picture:
    """Blend the labels' colours into an image; where a label meets another, its contour is drawn in the full colour.

    Args:
        picture: [H, W, 3].
        labels_HW: Indices into the palette; 0 leaves the image as it is.
        palette_K3: RGB.
    """
    colours_HW3 = palette_K3[labels_HW]
    blended_HW3 = ((1 - _OPACITY) * picture + _OPACITY * colours_HW3).round().astype(np.uint8)
    object_HW1, contour_HW1 = (labels_HW > 0)[:, :, None], _contours(labels_HW)[:, :, None]
    return np.where(object_HW1, np.where(contour_HW1, colours_HW3, blended_HW3), picture)


def side_by_side(panels: Sequence[Picture], titles: Sequence[str], width: int, gap: int = 0) -> Image.Image:
    """Panels beside each other, each under its title.

    Args:
        panels: Images of equal shape; one of another width than `width` is resized, which blurs what is drawn in it.
        titles: One per panel.
        width: Pixels per panel.
        gap: Pixels between panels.
    """
    images = [Image.fromarray(panel) for panel in panels]
    images = [image.resize((width, max(1, round(image.height * width / image.width)))) for image in images]
    height = max(image.height for image in images)
    canvas = Image.new("RGB", (width * len(images) + gap * (len(images) - 1), height + CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        left = index * (width + gap)
        draw.text((left + 4, 2), title, fill="black")
        canvas.paste(image, (left, CAPTION_HEIGHT))
    return canvas


def _contours(labels_HW: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels [H, W] with another label beside, above or below them."""
    contours = np.zeros(labels_HW.shape, dtype=bool)
    rows, columns = labels_HW[1:] != labels_HW[:-1], labels_HW[:, 1:] != labels_HW[:, :-1]
    contours[1:] |= rows
    contours[:-1] |= rows
    contours[:, 1:] |= columns
    contours[:, :-1] |= columns
    return contours
