"""From a frame's file to the network's input."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.davis.protocol import PropagationSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)

# Masks are drawn on the pixels as they are stored, whatever a camera says of which side is up.
_STORED_PIXELS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG_END = b"\xff\xd9"
# Cameras and editors may append a few bytes after the end marker.
_JPEG_TAIL_BYTES = 1024


class FrameError(ValueError):
    """A frame that is missing or damaged."""


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

    Args:
        height: Of the original frame.
        width: Of the original frame.
        settings: The protocol.
        multiple: What the backbone's input must be a multiple of; used by the `fixed` protocol only.
    """
    short = settings.short_side
    long_side_multiple = settings.quirks.long_side_multiple
    if long_side_multiple is None:
        scale = short / min(height, width)
        return tuple(max(1, round(side * scale / multiple)) * multiple for side in (height, width))  # type: ignore[return-value]
    long = short * max(height, width) // (min(height, width) * long_side_multiple) * long_side_multiple
    return (long, short) if height > width else (short, long)


def read_frame(path: Path, settings: PropagationSettings, multiple: int) -> Frame:
    """Decode, resize (OpenCV's bilinear, without antialiasing) and normalise a frame.

    Raises:
        FrameError: If the file is missing, damaged or truncated; names it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FrameError(f"{path}: no such frame") from error
    # OpenCV fills the rest of a truncated JPEG with grey and reports nothing.
    whole = len(content) > 0 and _JPEG_END in content[-_JPEG_TAIL_BYTES:]
    pixels_HW3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _STORED_PIXELS) if whole else None
    if pixels_HW3 is None:
        raise FrameError(f"{path}: not a JPEG, or a damaged or truncated one")
    original_height, original_width = pixels_HW3.shape[:2]
    height, width = input_size(original_height, original_width, settings, multiple)
    image_3HW = _normalise(cv2.resize(pixels_HW3, (width, height)), settings)
    return Frame(name=path.stem, image=torch.from_numpy(image_3HW), original_size=(original_height, original_width))


def read_frame_of(path: Path, size: tuple[int, int], settings: PropagationSettings, multiple: int) -> Frame:
    """As `read_frame`, for a sequence whose first frame has this size (height, width).

    Raises:
        FrameError: Also if the frame has another size.
    """
    frame = read_frame(path, settings, multiple)
    if frame.original_size != size:
        (height, width), (first_height, first_width) = frame.original_size, size
        raise FrameError(f"{path}: {width} x {height} pixels, but the first frame has {first_width} x {first_height}")
    return frame


def _normalise(bgr_HW3: NDArray[np.uint8], settings: PropagationSettings) -> NDArray[np.float32]:
    """RGB [3, H, W]; each of the 256 levels is computed once and looked up."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    image_3HW = np.empty((3, *bgr_HW3.shape[:2]), dtype=np.float32)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, settings.quirks.std, strict=True)):
        table = (levels - np.float32(mean)) / np.float32(std)
        cv2.LUT(cv2.extractChannel(bgr_HW3, 2 - channel), table, dst=image_3HW[channel])
    return image_3HW
