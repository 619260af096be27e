"""Whether a JPEG is all there."""

_START = b"\xff\xd8"
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"


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
