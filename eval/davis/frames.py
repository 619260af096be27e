"""From a frame's file to the network's input."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.images import IMAGENET_MEAN, breaks_off
from eval.davis.protocol import PropagationSettings

# Masks are drawn on the pixels as they are stored, whatever a camera says of which side is up.
_STORED_PIXELS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame, ready for the backbone."""

    name: str
    """File name without its suffix."""
    image: Tensor
    """[3, H, W] float32, RGB, normalised; H and W fit the backbone."""
    original_size: tuple[int, int]
    """(height, width) of the file."""


def input_size(height: int, width: int, settings: PropagationSettings, multiple: int) -> tuple[int, int]:
    """Size (height, width) at which the backbone sees a frame.

    Published: the short side is `short_side`, the long side in proportion, rounded down to a multiple of 64. A square frame counts
    as upright for its mask but as lying for its image in the authors' script, which then mixes up rows and columns where the two
    sizes differ; here it is always lying.

    `height` and `width` are the original frame's; the backbone's input must be a multiple of `multiple`, which only the `fixed`
    protocol heeds.
    """
    short = settings.short_side
    long_side_multiple = settings.quirks.long_side_multiple
    if long_side_multiple is None:
        scale = short / min(height, width)
        return tuple(max(1, round(side * scale / multiple)) * multiple for side in (height, width))  # type: ignore[return-value]
    long = short * max(height, width) // (min(height, width) * long_side_multiple) * long_side_multiple
    return (long, short) if height > width else (short, long)


def read_frame(path: Path, settings: PropagationSettings, multiple: int, size: tuple[int, int] | None = None) -> Frame:
    """Decode, resize (OpenCV's bilinear, without antialiasing) and normalise a frame.

    Args:
        path: The file.
        settings: The protocol.
        multiple: What the backbone's input must be a multiple of.
        size: (height, width) of the sequence's first frame, which the others must have too; None for any.

    Raises:
        ValueError: If the file is missing, damaged, truncated or of another size; names it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such frame") from error
    # OpenCV fills the rest of a truncated JPEG with grey and reports nothing.
    whole = len(content) > 0 and not breaks_off(content)
    pixels_HW3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _STORED_PIXELS) if whole else None
    if pixels_HW3 is None:
        raise ValueError(f"{path}: not a JPEG, or a damaged or truncated one")
    height, width = pixels_HW3.shape[:2]
    if size is not None and (height, width) != size:
        raise ValueError(f"{path}: {width} x {height} pixels, but the first frame has {size[1]} x {size[0]}")
    input_height, input_width = input_size(height, width, settings, multiple)
    image_3HW = _normalise(cv2.resize(pixels_HW3, (input_width, input_height)), settings)
    return Frame(name=path.stem, image=torch.from_numpy(image_3HW), original_size=(height, width))


def _normalise(bgr_HW3: NDArray[np.uint8], settings: PropagationSettings) -> NDArray[np.float32]:
    """RGB [3, H, W]; each of the 256 levels is computed once and looked up."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    image_3HW = np.empty((3, *bgr_HW3.shape[:2]), dtype=np.float32)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, settings.quirks.std, strict=True)):
        table = (levels - np.float32(mean)) / np.float32(std)
        cv2.LUT(cv2.extractChannel(bgr_HW3, 2 - channel), table, dst=image_3HW[channel])
    return image_3HW
