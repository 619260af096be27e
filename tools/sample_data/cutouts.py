"""Things cut out of photographs along an outline, scaled, mirrored and pasted elsewhere with an exact mask.

`outlines.json` holds the outlines, drawn by hand in pixels of the source photograph.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tools.sample_data.photographs import read_photograph

OUTLINES = Path(__file__).with_name("outlines.json")


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One thing at one size."""

    pixels: np.ndarray
    """uint8 [h, w, 3]; outside the mask still the source's surroundings."""
    mask: np.ndarray
    """bool [h, w]: the pixels that COCO's rasteriser gives for `polygon`."""
    polygon: np.ndarray
    """float [n, 2]: x, y in this cut-out's pixels."""


@cache
def _outlines() -> dict[str, tuple[str, np.ndarray]]:
    content = json.loads(OUTLINES.read_text(encoding="utf-8"))
    return {name: (entry["photograph"], np.array(entry["outline"], dtype=float)) for name, entry in content.items()}


def cutout_names() -> list[str]:
    """What there is to cut out, by COCO's category names."""
    return list(_outlines())


def rasterise(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask, bool [height, width], that pycocotools gives for a polygon [n, 2] of x, y."""
    encoded = coco_mask.frPyObjects([polygon.ravel().tolist()], height, width)
    return coco_mask.decode(encoded)[:, :, 0].astype(bool)


def make_cutout(name: str, long_side: int, mirrored: bool = False) -> Cutout:
    """Cut a thing out and scale it.

    Args:
        name: One of `cutout_names()`.
        long_side: Longer side of its bounding box in pixels.
        mirrored: Whether left and right change places.
    """
    file_name, outline = _outlines()[name]
    photograph = read_photograph(file_name)
    left, top = np.floor(outline.min(axis=0)).astype(int)
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 1
    scale = long_side / max(right - left, bottom - top)
    width, height = round((right - left) * scale), round((bottom - top) * scale)
    source = Image.fromarray(photograph[top:bottom, left:right])
    pixels = np.array(source.resize((width, height), Image.Resampling.LANCZOS))
    polygon = (outline - (left, top)) * (width / (right - left), height / (bottom - top))
    if mirrored:
        pixels = pixels[:, ::-1]
        polygon = polygon * (-1, 1) + (width, 0)
    # Rounded first, so that the polygon that a file states is the one that the mask is made of.
    polygon = polygon.round(2)
    return Cutout(pixels=pixels, mask=rasterise(polygon, height, width), polygon=polygon)


def paste(canvas: np.ndarray, cutout: Cutout, left: int, top: int) -> np.ndarray:
    """Paste a cut-out, in place; what lies beyond the border is lost.

    Args:
        canvas: uint8 [H, W, 3].
        cutout: What to paste.
        left: Column of the cut-out's left border, may be negative.
        top: Row of its upper border, may be negative.

    Returns:
        The pixels that it covers, bool [H, W].
    """
    mask = place_mask(cutout, left, top, canvas.shape[0], canvas.shape[1])
    rows, columns = np.nonzero(mask)
    canvas[rows, columns] = cutout.pixels[rows - top, columns - left]
    return mask


def place_mask(cutout: Cutout, left: int, top: int, height: int, width: int) -> np.ndarray:
    """The pixels, bool [height, width], that `paste` would cover."""
    mask = np.zeros((height, width), dtype=bool)
    own_height, own_width = cutout.mask.shape
    rows = slice(max(top, 0), max(min(top + own_height, height), 0))
    columns = slice(max(left, 0), max(min(left + own_width, width), 0))
    mask[rows, columns] = cutout.mask[
        rows.start - top : max(rows.stop - top, 0), columns.start - left : max(columns.stop - left, 0)
    ]
    return mask
