"""Whether a JPEG is all there, and how large it is."""

import struct
from typing import NamedTuple

_START = b"\xff\xd8"
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
_MARKER = 0xFF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of a frame, whatever its coding; the three are tables
_FRAME_BYTES = 10  # marker, length, bits, height, width, number of components


def is_jpeg(content: bytes) -> bool:
    """Whether the bytes begin as a JPEG file does."""
    return content.startswith(_START)


def ends_whole(tail: bytes) -> bool:
    """Whether the last bytes of a file are a JPEG's end marker; where not, `breaks_off` decides from the whole file."""
    return tail.endswith(_END)


def breaks_off(content: bytes) -> bool:
    """Whether a JPEG file lacks its end; decoders fill the missing part with grey. Bytes after the end are allowed.

    Args:
        content: Of the whole file.
    """
    # Within the compressed data, these two bytes never follow each other.
    return is_jpeg(content) and content.rfind(_END) < content.rfind(_SCAN)


class JpegHeader(NamedTuple):
    """What a JPEG file says about itself before its compressed data."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    components: int
    """1 grey, 3 colours, 4 inks."""


def read_header(content: bytes) -> JpegHeader | None:
    """Size and number of colours of a JPEG file, without decoding anything.

    Args:
        content: Of the file.

    Returns:
        None where the bytes are no JPEG file, or are damaged before that point.
    """
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
