"""The photographs that scikit-image's wheel contains.

Only these: the rest of `skimage.data` is fetched from the network on first use. All are free to use and distribute; their
origins are stated in `skimage.data`.
"""

from functools import cache
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

FOLDER = Path(skimage.__file__).parent / "data"

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
"""Subject -> file. `motorcycle_right.png` is the other half of a stereo pair, hence no subject of its own."""


@cache
def read_photograph(file_name: str) -> np.ndarray:
    """One photograph as uint8 [H, W, 3]; grey ones get three equal channels. Read-only, since it is shared.

    Raises:
        ValueError: If the installed scikit-image does not contain it.
    """
    path = FOLDER / file_name
    if not path.is_file():
        raise ValueError(
            f"{path}: not in this scikit-image; install the version that requirements.txt pins (bash tools/setup.sh)"
        )
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def scale_part(photograph: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Cut a box out of a photograph and scale it.

    Args:
        photograph: uint8 [H, W, 3].
        box: Left, top, right, bottom in pixels, not necessarily whole ones; clipped to the photograph.
        size: Wanted width and height in pixels.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = photograph.shape[:2]
    left, top, right, bottom = box
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    return np.asarray(Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS, box=inside))
