"""From an image file's bytes to resized crops, decoding no more than they need.

JPEG files of one or three components go to OpenCV's libjpeg-turbo, whose pixels equal Pillow's; all others, and what OpenCV refuses,
to Pillow. Where all crops of a photograph are much smaller than their boxes, the JPEG decoder itself scales down by 2, 4 or 8: a crop
is never enlarged from a scaled image, and each is still reduced by at least `REDUCING_GAP` afterwards, which keeps it within a level
of 255 on average of the crop from the whole image. Boxes are those drawn for the whole image; in the scaled one they may end between
pixels.
"""

import io
import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from common.jpeg import breaks_off, read_header

Pixels = npt.NDArray[np.uint8]
"""[H, W, 3]"""
Planes = npt.NDArray[np.uint8]
"""[3, H, W]"""

REDUCING_GAP = 2.0
"""How much larger than the crop its box must remain in an image that the decoder scales (Pillow's word for it)."""

# The bit that scales; those called REDUCED_COLOR add the bit for BGR.
_SCALED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow refuses more


@dataclass(frozen=True)
class Picture:
    """A decoded image."""

    pixels_HW3: Pixels
    """uint8 RGB, contiguous."""
    scale: int = 1
    """By how much the decoder divided its sides."""


class EncodedImage:
    """An image that knows its size and decodes when it is told how large its crops are."""

    def __init__(self, content: bytes | Pixels) -> None:
        """Read the size.

        Args:
            content: Of an image file; or pixels uint8 [H, W, 3], which need no decoding.

        Raises:
            OSError: If it is no image, or a JPEG file that breaks off.
        """
        self._content = b""
        self._pixels: Pixels | None = None
        if not isinstance(content, bytes):
            self._pixels = content
        elif breaks_off(content):
            raise OSError("the JPEG file breaks off")
        else:
            header = read_header(content)
            if header and header.components in (1, 3) and 0 < header.width * header.height <= _MAX_PIXELS:
                self._content, self.width, self.height = content, header.width, header.height
                return
            self._pixels = _decode_with_pillow(content)
        self.height, self.width = self._pixels.shape[:2]

    def decode(self, boxes: npt.NDArray[np.int64], sizes: list[int]) -> Picture:
        """Decode as small as the crops allow.

        Args:
            boxes: [V, 4], see `ViewDraws`.
            sizes: Side of each crop in pixels; without any, the image is decoded whole.

        Raises:
            OSError: If it cannot be decoded.
        """
        if self._pixels is not None:
            return Picture(self._pixels)
        room = min((boxes[:, 2:].min(axis=1) / sizes).tolist(), default=1) / REDUCING_GAP
        scale = max(scale for scale in _SCALED if scale <= max(room, 1))
        mode = _SCALED[scale] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(self._content, np.uint8), mode)
        return Picture(pixels, scale) if pixels is not None else Picture(_decode_with_pillow(self._content))


def decode_whole(content: bytes | Pixels) -> Pixels:
    """Decode an image completely: uint8 RGB [H, W, 3].

    Raises:
        OSError: If it cannot be decoded; also for files cut short.
    """
    return EncodedImage(content).decode(np.zeros((0, 4), dtype=np.int64), []).pixels_HW3


def resized_crop(picture: Picture, box: npt.NDArray[np.int64], size: int) -> Planes:
    """Cut out a box and resize it bicubically, antialiased: uint8 [3, size, size].

    Args:
        picture: From `EncodedImage.decode`.
        box: Top, left, height, width in pixels of the whole image.
        size: Side in pixels.
    """
    top, left, height, width = box.tolist()
    if picture.scale > 1:
        return _resized_crop_between_pixels(picture, top, left, height, width, size)
    return resize(picture.pixels_HW3[top : top + height, left : left + width], size, "bicubic")


def resize(pixels_HW3: Pixels, size: int, mode: str) -> Planes:
    """Resize to a square, antialiased, on bytes: uint8 [3, size, size].

    Torch follows Pillow's algorithm; fewer than one value in a thousand differ by more than a level of 255, at extremes where one
    of them limits intermediate values.

    Args:
        pixels_HW3: Contiguous along rows.
        size: Side in pixels.
        mode: `bilinear` or `bicubic`.
    """
    batch_13HW = torch.from_numpy(pixels_HW3).permute(2, 0, 1)[None]
    planes_3HW: Planes = F.interpolate(batch_13HW, size=(size, size), mode=mode, antialias=True)[0].numpy()
    return planes_3HW


def _resized_crop_between_pixels(picture: Picture, top: int, left: int, height: int, width: int, size: int) -> Planes:
    """Pillow resizes from boxes that end between pixels; nothing from outside the box's pixels gets in."""
    scale, (rows, columns, _) = picture.scale, picture.pixels_HW3.shape
    first_row, first_column = top // scale, left // scale
    end_row, end_column = math.ceil((top + height) / scale), math.ceil((left + width) / scale)
    part = Image.fromarray(np.ascontiguousarray(picture.pixels_HW3[first_row:end_row, first_column:end_column]))
    box = (
        left / scale - first_column,
        top / scale - first_row,
        min((left + width) / scale, columns) - first_column,
        min((top + height) / scale, rows) - first_row,
    )
    return np.asarray(part.resize((size, size), Image.Resampling.BICUBIC, box=box)).transpose(2, 0, 1)


def _decode_with_pillow(content: bytes) -> Pixels:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array(image.convert("RGB"))
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises these too for damaged files, depending on the format.
        raise OSError(str(error)) from error
