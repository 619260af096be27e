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

CAPTION_HEIGHT = 16  # pixels above each panel for its title
_OPACITY = 0.5


def read_image(path: Path) -> Picture:
    """Decode an image as it is stored; ValueError, which names it, if it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such image") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: damaged image ({error})") from error


def overlay(picture: Picture, labels_HW: npt.NDArray[np.integer], palette_K3: npt.NDArray[np.uint8]) -> Picture:
    """Blend the labels' colours into an image; where a label meets another, its contour is drawn in the full colour.

    Labels are indices into the palette; 0 leaves the image as it is.
    """
    colours_HW3 = palette_K3[labels_HW]
    blended_HW3 = ((1 - _OPACITY) * picture + _OPACITY * colours_HW3).round().astype(np.uint8)
    contours_HW = np.zeros(labels_HW.shape, dtype=bool)
    rows, columns = labels_HW[1:] != labels_HW[:-1], labels_HW[:, 1:] != labels_HW[:, :-1]
    contours_HW[1:] |= rows
    contours_HW[:-1] |= rows
    contours_HW[:, 1:] |= columns
    contours_HW[:, :-1] |= columns
    return np.where((labels_HW > 0)[..., None], np.where(contours_HW[..., None], colours_HW3, blended_HW3), picture)


def side_by_side(panels: Sequence[Picture], titles: Sequence[str], width: int, gap: int = 0) -> Image.Image:
    """Panels of equal shape beside each other, `gap` pixels apart, each under its title.

    A panel of another width than `width` is resized, which blurs what is drawn in it.
    """
    images = [Image.fromarray(panel) for panel in panels]
    images = [image.resize((width, max(1, round(image.height * width / image.width)))) for image in images]
    canvas_width = width * len(images) + gap * (len(images) - 1)
    canvas = Image.new("RGB", (canvas_width, images[0].height + CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        left = index * (width + gap)
        draw.text((left + 4, 2), title, fill="black")
        canvas.paste(image, (left, CAPTION_HEIGHT))
    return canvas
