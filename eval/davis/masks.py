"""Object masks as indexed PNG files: the palette, reading and writing."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from eval.davis.plain_png import decode_plain_png

Mask = npt.NDArray[np.uint8]
"""[H, W] object ids; 0 is background."""

VOID_ID = 255
"""Pixels that an annotator left undecided."""

_ID_MODES = ("P", "L", "1")


class MaskError(ValueError):
    """A mask file that is missing, damaged or not a map of object ids."""


# Pillow raises any of these for a damaged PNG.
_DAMAGED = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def davis_palette() -> npt.NDArray[np.uint8]:
    """The palette [256, 3] of PASCAL VOC and DAVIS: each colour's bits are the id's bits, dealt out to R, G, B from the top."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            palette[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return palette


_PALETTE_BYTES = davis_palette().tobytes()


def read_mask(path: Path) -> Mask:
    """Read object ids from an indexed, grey or binary PNG.

    Raises:
        MaskError: If there is no such file, it is damaged, not a PNG, or a colour image; names the file.
    """
    with _errors_named(path):
        content = path.read_bytes()
        if (ids := decode_plain_png(content)) is not None:
            return ids
        with Image.open(io.BytesIO(content)) as image:
            _check_kind(path, image)
            return np.asarray(image, dtype=np.uint8)


def read_mask_size(path: Path) -> tuple[int, int]:
    """(height, width) of a mask by its header; errors as `read_mask`, of damage only what the header shows."""
    with _errors_named(path), Image.open(path) as image:
        _check_kind(path, image)
        return image.height, image.width


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except MaskError:
        raise
    except FileNotFoundError as error:
        raise MaskError(f"{path}: no such mask") from error
    except _DAMAGED as error:
        raise MaskError(f"{path}: damaged mask ({error})") from error


def _check_kind(path: Path, image: Image.Image) -> None:
    if image.format != "PNG":
        raise MaskError(f"{path}: a {image.format} file; masks are indexed PNG files")
    if image.mode not in _ID_MODES:
        raise MaskError(f"{path}: a PNG of mode {image.mode}; masks hold one object id per pixel (mode P, as DAVIS has)")


def write_mask(path: Path, mask: Mask) -> None:
    """Write object ids as an indexed PNG with the DAVIS palette."""
    image = Image.fromarray(mask)
    image.putpalette(_PALETTE_BYTES)
    image.save(path)


def single_object(mask: Mask) -> Mask:
    """All objects as one, as DAVIS-2016 has it; its files hold 0 and 255."""
    return (mask > 0).astype(np.uint8)


def without_void(mask: Mask) -> Mask:
    """Undecided pixels as background, as the semi-supervised evaluation takes them."""
    return np.where(mask == VOID_ID, np.uint8(0), mask) if mask.max() == VOID_ID else mask
