"""Object masks as indexed PNG files: reading and writing them, their palette, and drawing them over frames."""

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from zlib_ng import zlib_ng

from common.images import require_decodable, to_rgb
from eval.image_checks import PILLOW_ERRORS

Mask = npt.NDArray[np.uint8]  # [H, W] object ids; 0 is background.

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB.

VOID_ID = 255  # pixels that an annotator left undecided

_ID_MODES = ("P", "L", "1")
_OPACITY = 0.5

# The palette of PASCAL VOC and DAVIS: each colour's bits are the id's bits, dealt out to R, G, B from the top.
_BITS_256x9 = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, count=9, bitorder="little")
PALETTE_256x3 = (_BITS_256x9.reshape(256, 3, 3) * np.array([[128], [64], [32]])).sum(1).astype(np.uint8)


def read_mask(path: Path) -> Mask:
    """Read object ids from an indexed, grey or binary PNG; ValueError, which names the file, if it is none."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind, mode = image.format, image.mode
            require_decodable(image.size)
            if kind == "PNG" and mode in _ID_MODES:
                ids = _read_plain(content, image)
                return np.asarray(image, dtype=np.uint8) if ids is None else ids
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such mask") from error
    except PILLOW_ERRORS as error:
        raise ValueError(f"{path}: damaged mask ({error})") from error
    found = f"a PNG of mode {mode}" if kind == "PNG" else f"a {kind} file"
    raise ValueError(f"{path}: {found}; masks are PNG files with one object id per pixel (mode P, as DAVIS has)")


def _read_plain(content: bytes, image: Image.Image) -> Mask | None:
    """Ids of a PNG of 8 bits per pixel that stores its rows unfiltered; None for any other, and for one that cannot be inflated.

    The annotations of DAVIS and the indexed images that Pillow writes are such files. Pillow inflates row by row, which takes 1.0 ms
    at 480p, and this 0.3 ms; with Pillow alone, J&F would take 2.6 times as long.
    """
    assert isinstance(image, ImageFile)
    if not image.tile:
        raise ValueError("no pixels")  # of which Pillow would make background
    _, _, offset, layout = image.tile[0]
    if layout not in ("P", "L") or image.info.get("interlace"):
        return None
    position, parts = offset - 8, []
    while content[position + 4 : position + 8] == b"IDAT":
        length = int.from_bytes(content[position : position + 4], "big")
        parts.append(content[position + 8 : position + 8 + length])
        position += 12 + length
    size = image.height * (1 + image.width)
    stream = zlib_ng.decompressobj()
    try:
        pixels = stream.decompress(b"".join(parts), size + 1)
    except zlib_ng.error:  # type: ignore[misc] # its stub does not know that it is an exception
        return None
    if stream.eof and len(pixels) < size:
        raise ValueError(f"{len(pixels)} bytes of pixels instead of {size}")  # Pillow would fill them up with background
    if not stream.eof or len(pixels) > size:
        return None
    # Each row begins with the number of its filter.
    rows_HW = np.frombuffer(pixels, dtype=np.uint8).reshape(image.height, 1 + image.width)
    return None if rows_HW[:, 0].any() else np.ascontiguousarray(rows_HW[:, 1:])


def write_mask(path: Path, mask: Mask) -> None:
    """Write object ids as an indexed PNG with the DAVIS palette."""
    image = Image.fromarray(mask)
    image.putpalette(PALETTE_256x3.tobytes())
    image.save(path)


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resample object ids to (height, width) by nearest neighbour."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def single_object(mask: Mask) -> Mask:
    """All objects as one, as DAVIS-2016 has it; its files hold 0 and 255."""
    return (mask > 0).astype(np.uint8)


def without_void(mask: Mask) -> Mask:
    """Undecided pixels as background, as the semi-supervised evaluation takes them."""
    return np.where(mask == VOID_ID, np.uint8(0), mask) if mask.max() == VOID_ID else mask


def read_image(path: Path) -> Picture:
    """Decode an image as it is stored; ValueError, which names it, if it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(to_rgb(image))
    except PILLOW_ERRORS as error:
        raise ValueError(f"{path}: missing or damaged image ({error})") from error


def overlay(frame: Path, mask: Path) -> Picture:
    """Blend the colours of a mask's file into its frame; where ids meet, the contour is drawn in the full colour."""
    picture_HW3, ids_HW = read_image(frame), read_mask(mask)
    if ids_HW.shape != picture_HW3.shape[:2]:
        (height, width), (frame_height, frame_width) = ids_HW.shape, picture_HW3.shape[:2]
        raise ValueError(f"{mask}: {width} x {height} pixels, but its frame has {frame_width} x {frame_height}")
    return blend(picture_HW3, ids_HW)


def blend(picture_HW3: Picture, ids_HW: Mask) -> Picture:
    """As `overlay`, of what is read already, in one size."""
    colours_HW3 = PALETTE_256x3[ids_HW]
    blended_HW3 = ((1 - _OPACITY) * picture_HW3 + _OPACITY * colours_HW3).round().astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    contours_HW1 = cv2.morphologyEx(ids_HW, cv2.MORPH_GRADIENT, cross)[..., None] > 0
    return np.where(ids_HW[..., None] > 0, np.where(contours_HW1, colours_HW3, blended_HW3), picture_HW3)
