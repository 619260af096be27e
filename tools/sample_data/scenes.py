"""The images of the sample data: crops of photographs, backgrounds with exact labels, and things cut out and pasted.

The photographs are those in scikit-image's wheel; the others of `skimage.data` would be downloaded on first use. All are free to use
and distribute; `skimage.data` states their origins.

Shapes: H, W of an image or mask; N points of a polygon.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
from PIL import Image
from pycocotools import mask as coco_mask

FOLDER = Path(skimage.__file__).parent / "data"
_OUTLINES = json.loads(Path(__file__).with_name("outlines.json").read_text(encoding="utf-8"))
CUTOUTS = tuple(_OUTLINES)
"""The things that can be cut out, by COCO's category names. Their outlines were drawn by hand, in the photographs' pixels."""

COLOUR_PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "galaxies": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
"""Subject -> file. `motorcycle_right.png` is the other half of a stereo pair, and so not a subject of its own."""

# Smallest and largest value of a crop.
SHORT_SIDE = (128, 224)
CROP_SCALE = (0.45, 1.0)  # short side over that of the photograph
ASPECT = (0.75, 4 / 3)  # width over height

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


class Surface(NamedTuple):
    """A part of a photograph with a uniform texture."""

    file_name: str
    box: Box
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors on red, green and blue: the textures that scikit-image ships are grey."""


UPPER = {
    "sky": Surface("rocket.jpg", (95, 0, 535, 118)),
    "wall": Surface("brick.png", (0, 0, 512, 512), tint=(1.0, 0.72, 0.6)),
}
LOWER = {
    "grass": Surface("grass.png", (0, 0, 512, 512), tint=(0.75, 1.0, 0.45)),
    "earth": Surface("gravel.png", (0, 0, 512, 512), tint=(1.0, 0.85, 0.65)),
    "table": Surface("coffee.png", (488, 0, 600, 400)),
}


@cache
def read_photograph(file_name: str) -> np.ndarray:
    """A photograph, uint8 [H, W, 3]; a grey one gets three equal channels. The array is read-only, because it is shared."""
    path = FOLDER / file_name
    if not path.is_file():
        raise ValueError(f"{path}: not in this scikit-image; install the version in requirements.txt (bash tools/setup.sh)")
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def scale_part(photograph: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Cut a box, clipped to the photograph, out of it, and scale it to `size` (width, height) in pixels; uint8 [H, W, 3]."""
    height, width = photograph.shape[:2]
    left, top, right, bottom = box
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    return np.asarray(Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS, box=inside))


def draw_crop(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop of a photograph, scaled, and mirrored with probability 0.5; uint8 [H, W, 3]."""
    height, width = photograph.shape[:2]
    aspect = rng.uniform(*ASPECT)
    # The largest box of this aspect inside the photograph, times the scale.
    box_height = min(height, width / aspect) * rng.uniform(*CROP_SCALE)
    box_width = box_height * aspect
    left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
    scale = rng.uniform(*SHORT_SIDE) / min(box_width, box_height)
    size = (round(box_width * scale), round(box_height * scale))
    crop = scale_part(photograph, (left, top, left + box_width, top + box_height), size)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def draw_scene(
    rng: np.random.Generator, width: int, height: int, lower: Sequence[str] = tuple(LOWER)
) -> tuple[np.ndarray, str, str, np.ndarray]:
    """Draw a background of this size in pixels: a wall or the sky above a sloping line, and one of the grounds below it.

    Returns:
        The image, uint8 [H, W, 3]; the upper part, a key of `UPPER`; the lower part, a key of `LOWER`, and its mask, bool [H, W].
    """
    upper_name = str(rng.choice(list(UPPER)))
    lower_name = str(rng.choice(list(lower)))
    left_height, right_height = rng.uniform(0.45, 0.7, size=2) * height
    horizon_W = np.linspace(left_height, right_height, width)
    lower_mask = np.arange(height)[:, None] >= horizon_W[None, :]
    above, below = (_cover(surface, rng, width, height) for surface in (UPPER[upper_name], LOWER[lower_name]))
    return np.where(lower_mask[:, :, None], below, above), upper_name, lower_name, lower_mask


def _cover(surface: Surface, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random part of a surface, scaled to uint8 [height, width, 3]."""
    left, top, right, bottom = surface.box
    # The largest part of the wanted shape, times 0.5 to 1.
    part = min((right - left) / width, (bottom - top) / height) * rng.uniform(0.5, 1.0)
    x = left + rng.uniform(0, (right - left) - part * width)
    y = top + rng.uniform(0, (bottom - top) - part * height)
    box = (x, y, x + part * width, y + part * height)
    pixels = scale_part(read_photograph(surface.file_name), box, (width, height))
    return (pixels * np.array(surface.tint)).round().astype(np.uint8)


class Cutout(NamedTuple):
    """A thing that was cut out of a photograph along its outline, at one size."""

    pixels: np.ndarray  # uint8 [H, W, 3]; outside the mask, it shows the surroundings in the photograph.
    mask: np.ndarray  # bool [H, W]: the pixels that COCO's rasteriser gives for `polygon`.
    polygon: np.ndarray  # float [N, 2]: x, y in this cut-out's pixels.


def make_cutout(name: str, long_side: int, mirrored: bool = False) -> Cutout:
    """Cut out the thing called `name` and scale the longer side of its bounding box to `long_side` pixels."""
    photograph = read_photograph(_OUTLINES[name]["photograph"])
    outline_N2 = np.array(_OUTLINES[name]["outline"], dtype=float)
    left, top = np.floor(outline_N2.min(axis=0)).astype(int)
    right, bottom = np.ceil(outline_N2.max(axis=0)).astype(int) + 1
    scale = long_side / max(right - left, bottom - top)
    width, height = round((right - left) * scale), round((bottom - top) * scale)
    source = Image.fromarray(photograph[top:bottom, left:right])
    pixels = np.array(source.resize((width, height), Image.Resampling.LANCZOS))
    polygon_N2 = (outline_N2 - (left, top)) * (width / (right - left), height / (bottom - top))
    if mirrored:
        pixels = pixels[:, ::-1]
        polygon_N2 = polygon_N2 * (-1, 1) + (width, 0)
    # Rounding comes first, so that the mask belongs to the polygon in the annotation file.
    polygon_N2 = polygon_N2.round(2)
    encoded = coco_mask.frPyObjects([polygon_N2.ravel().tolist()], height, width)
    return Cutout(pixels, coco_mask.decode(encoded)[:, :, 0].astype(bool), polygon_N2)


def place_mask(cutout: Cutout, left: int, top: int, height: int, width: int) -> np.ndarray:
    """The pixels, bool [height, width], that `paste` would cover."""
    mask = Image.new("1", (width, height))
    mask.paste(Image.fromarray(cutout.mask), (left, top))
    return np.array(mask)


def paste(canvas: np.ndarray, cutout: Cutout, left: int, top: int) -> np.ndarray:
    """Paste a cut-out into `canvas`, uint8 [H, W, 3], in place; what is beyond the border is dropped.

    Its upper left corner is at the column `left` and the row `top`, which may be negative. Returns the covered pixels, bool [H, W].
    """
    mask = place_mask(cutout, left, top, canvas.shape[0], canvas.shape[1])
    rows, columns = np.nonzero(mask)
    canvas[rows, columns] = cutout.pixels[rows - top, columns - left]
    return mask
