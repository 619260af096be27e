"""Binary images packed into words of 64 pixels, so that dilation by a disk is a few shifts.

Shapes: H x W pixels, V words per row.
"""

import math

import numpy as np
import numpy.typing as npt

BinaryImage = npt.NDArray[np.bool_]
"""[H, W]."""

PackedImage = npt.NDArray[np.uint64]
"""[H, V]; the lowest bit of the first word is the leftmost pixel."""

_WORD = 64
_NO_WORD = np.zeros(1, dtype=np.uint64)


def pack(image: BinaryImage, margin: int) -> PackedImage:
    """Pack an image, with at least `margin` empty pixels at the right end of each row."""
    height, width = image.shape
    words = -(-(width + margin) // _WORD)
    padded_HW = np.zeros((height, words * _WORD), dtype=bool)
    padded_HW[:, :width] = image
    return np.packbits(padded_HW, axis=1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def count(image_HV: PackedImage) -> int:
    """Number of set pixels."""
    return int(np.bitwise_count(image_HV).sum())


def dilate(image_HV: PackedImage, radius: int) -> PackedImage:
    """Set every pixel within a Euclidean distance of a set one.

    The disk is taken row by row: a row dilated by half the disk's width at height d counts d rows further up and down. Bits that
    leave a row at one end arrive in the margin of the neighbouring row or beyond its content, so the result is only valid where the
    image had pixels.

    Args:
        image_HV: Packed with a margin of at least `radius`.
        radius: In pixels.
    """
    assert radius >= 0
    bits = image_HV.ravel()
    # The words whose bits arrive in a word: by whole words away, and the next ones.
    left, right = bits, bits
    left_neighbour, right_neighbour = _moved_right(bits), _moved_left(bits)
    result_HV = np.zeros_like(image_HV)
    widened, half_width = bits.copy(), 0
    for distance in range(min(radius, len(image_HV) - 1), -1, -1):
        while half_width < math.isqrt(radius**2 - distance**2):
            half_width += 1
            if half_width % _WORD == 0:
                left, right = left_neighbour, right_neighbour
                left_neighbour, right_neighbour = _moved_right(left), _moved_left(right)
                widened |= left | right
                continue
            shift, rest = np.uint64(half_width % _WORD), np.uint64(_WORD - half_width % _WORD)
            widened |= (left << shift) | (left_neighbour >> rest)
            widened |= (right >> shift) | (right_neighbour << rest)
        widened_HV = widened.reshape(image_HV.shape)
        result_HV[distance:] |= widened_HV[: len(widened_HV) - distance]
        result_HV[: len(widened_HV) - distance] |= widened_HV[distance:]
    return result_HV


def _moved_right(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return np.concatenate([_NO_WORD, words[:-1]])


def _moved_left(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return np.concatenate([words[1:], _NO_WORD])
