"""Files of images: their suffixes, which JPEG is whole and how large, lists of names, and ImageNet's normalisation."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

ItemT = TypeVar("ItemT")

# Mean and deviation of RGB values from 0 to 1, by which every backbone here wants its input normalised.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Endings of image files in lower case: those of torchvision's `ImageFolder`.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})

_START, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_MARKER = 0xFF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of a frame, whatever its coding; the three are tables
_FRAME_BYTES = 10  # marker, length, bits, height, width, number of components


def is_jpeg(content: bytes) -> bool:
    return content.startswith(_START)


def ends_whole(tail: bytes) -> bool:
    """Whether the last bytes of a file are a JPEG's end marker; where not, `breaks_off` decides from the whole file."""
    return tail.endswith(_END)


def breaks_off(content: bytes) -> bool:
    """Whether a JPEG file, given whole, lacks its end; decoders fill the missing part with grey. Bytes after the end are allowed."""
    # Within the compressed data, these two bytes never follow each other.
    return is_jpeg(content) and content.rfind(_END) < content.rfind(_SCAN)


class JpegHeader(NamedTuple):
    """What a JPEG file says about itself before its compressed data; components: 1 grey, 3 colours, 4 inks."""

    width: int
    height: int
    components: int


def read_header(content: bytes) -> JpegHeader | None:
    """What the beginning of a file says; None where it is not a JPEG's, or is damaged before that point."""
    if not is_jpeg(content):
        return None
    position = len(_START)
    while position + _FRAME_BYTES <= len(content) and content[position] == _MARKER:
        marker = content[position + 1]
        if marker == _MARKER:  # padding before a marker
            position += 1
        elif marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", content, position + 5)
            return JpegHeader(width, height, components)
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a list, such as names of images, without surrounding spaces and empty ones; ValueError if it is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """The items in the middle of `count` equal parts; all of them if there are no more."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]
