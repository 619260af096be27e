"""Looks at one image file: cheaply at its header and its end, or by decoding it.

Imports neither torch nor OpenMMLab, so that the worker processes start at once.
"""

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from common.jpeg import breaks_off, ends_whole, is_jpeg
from eval.davis.masks import MaskError, read_mask

_LFS_START = b"version https://git-lfs.github.com/"
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
_CHUNK_OVERHEAD = 12  # length, type, checksum
_HEAD_BYTES = 64
_ORIENTATION = 0x0112
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)

# What Pillow raises for headers that are none; it reports broken PNG chunks as SyntaxError.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class Damage(StrEnum):
    """Why a file is of no use, as a phrase about several."""

    EMPTY = "empty (0 bytes)"
    LFS_POINTER = "Git LFS pointers instead of the files themselves"
    WEB_PAGE = "web pages instead of images"
    UNREADABLE = "not to be opened (broken links, permissions)"
    NOT_AN_IMAGE = "no images by their first bytes"
    TRUNCATED = "cut off before their end"
    CORRUPT = "damaged inside"
    COLOUR = "colour images, not one number per pixel"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """What is known of an image file."""

    path: Path
    """Which."""
    size: tuple[int, int] | None = None
    """(width, height) by its header; None where it has none."""
    turned: bool = False
    """Whether its EXIF orientation swaps the two when it is read."""
    damage: Damage | None = None
    """What is wrong; None if nothing was seen."""
    detail: str = ""
    """The decoder's words, where there are any."""
    values: tuple[int, ...] | None = None
    """The different values of a label map, ascending; None where it was not decoded."""


def look(path: Path) -> FileFacts:
    """Read a photograph's header and its last bytes; see `_damage_at_the_end`."""
    return _examine(path, lambda image: "")


def decode_photo(path: Path) -> FileFacts:
    """Decode a photograph as the tasks do, by OpenCV, and take the decoder's warnings for damage.

    A JPEG has no checksum: a few changed bits within it that still decode go unseen.
    """

    def fault(image: Image.Image) -> str:
        content = path.read_bytes()
        if image.format == "PNG":
            return png_fault(content) or jpeg_fault(content)
        return jpeg_fault(content)

    return _examine(path, fault)


def decode_picture(path: Path) -> FileFacts:
    """Decode an image as classification does, by Pillow, whose decoder passes over slips that ImageNet's own files have."""

    def fault(image: Image.Image) -> str:
        image.convert("RGB")
        return ""

    return _examine(path, fault)


def look_at_labels(path: Path) -> FileFacts:
    """As `look`, for a label map: an image with one channel."""
    return _examine(path, lambda image: "", labels=True)


def decode_labels(path: Path) -> FileFacts:
    """Decode a label map and note its values; the checksums of its chunks must be right."""
    values: npt.NDArray[np.integer] | None = None

    def fault(image: Image.Image) -> str:
        nonlocal values
        if broken := png_fault(path.read_bytes()):
            return broken
        try:
            values = np.unique(np.asarray(image))
        except _PILLOW_ERRORS as error:
            return str(error)
        return ""

    return _with_values(_examine(path, fault, labels=True), values)


def decode_mask(path: Path) -> FileFacts:
    """As `decode_labels`, by the reader of DAVIS' masks."""
    values: npt.NDArray[np.integer] | None = None

    def fault(image: Image.Image) -> str:
        nonlocal values
        del image
        try:
            values = np.flatnonzero(np.bincount(read_mask(path).ravel()))
        except MaskError as error:
            return str(error).removeprefix(f"{path}: ")
        return png_fault(path.read_bytes())

    return _with_values(_examine(path, fault, labels=True), values)


def text_damage(path: Path) -> Damage | None:
    """Why a file that should hold text of its own does not, by its first bytes.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        return _damage_at_the_start(stream)


def png_fault(content: bytes) -> str:
    """What is wrong with a PNG's chunks: the first wrong checksum or the missing end; empty if nothing, or if it is no PNG.

    Pillow checks no sums of the pixels' chunks.
    """
    if not content.startswith(_PNG_START):
        return ""
    position = len(_PNG_START)
    while position + _CHUNK_OVERHEAD <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + _CHUNK_OVERHEAD + length
        if end > len(content):
            break
        kind = content[position + 4 : position + 8]
        if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return f"wrong checksum of the {kind.decode('latin-1')} chunk at byte {position}"
        if kind == b"IEND":
            return ""
        position = end
    return "breaks off within a chunk"


def jpeg_fault(content: bytes) -> str:
    """What OpenCV's decoder complains of, in one line; empty if nothing.

    libjpeg only warns of damage, on the process's standard error, and OpenCV returns the picture as if all were well.
    """
    with tempfile.TemporaryFile() as warnings:
        saved = os.dup(2)
        os.dup2(warnings.fileno(), 2)
        try:
            pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            return " ".join(str(error).split())
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        warnings.seek(0)
        said = " ".join(warnings.read().decode(errors="replace").split())
    return said if pixels is not None else said or "the decoder refuses it"


def _examine(path: Path, find_fault: Callable[[Image.Image], str], labels: bool = False) -> FileFacts:
    """The checks of header and end, then `find_fault` with the opened image."""
    try:
        with path.open("rb") as stream:
            if damage := _damage_at_the_start(stream):
                return FileFacts(path=path, damage=damage)
            with Image.open(stream) as image:
                turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in _TURNED_BY_A_QUARTER
                size, single = image.size, len(image.getbands()) == 1
                if _ends_early(stream):
                    return FileFacts(path=path, size=size, damage=Damage.TRUNCATED)
                if labels and not single:
                    return FileFacts(path=path, size=size, damage=Damage.COLOUR)
                if detail := find_fault(image):
                    return FileFacts(path=path, size=size, turned=turned, damage=Damage.CORRUPT, detail=detail)
                return FileFacts(path=path, size=size, turned=turned)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return FileFacts(path=path, damage=Damage.UNREADABLE, detail=error.strerror or "")
    except UnidentifiedImageError:
        return FileFacts(path=path, damage=Damage.NOT_AN_IMAGE)
    except _PILLOW_ERRORS as error:
        return FileFacts(path=path, damage=Damage.CORRUPT, detail=str(error))


def _damage_at_the_start(stream: io.BufferedReader) -> Damage | None:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if not head:
        return Damage.EMPTY
    if head.startswith(_LFS_START):
        return Damage.LFS_POINTER
    return Damage.WEB_PAGE if head.lstrip().lower().startswith(_PAGE_STARTS) else None


def _ends_early(stream: io.BufferedReader) -> bool:
    """Whether a JPEG or PNG lacks its end; the position in the stream is kept."""
    position = stream.tell()
    try:
        stream.seek(0)
        head = stream.read(len(_PNG_START))
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - len(_PNG_END)))
        tail = stream.read()
        if (is_jpeg(head) and not ends_whole(tail)) or (head == _PNG_START and tail != _PNG_END):
            # Bytes may follow the end; only the whole file tells.
            stream.seek(0)
            content = stream.read()
            return breaks_off(content) if is_jpeg(head) else _PNG_END not in content
        return False
    finally:
        stream.seek(position)


def _with_values(facts: FileFacts, values: npt.NDArray[np.integer] | None) -> FileFacts:
    if values is None or facts.damage is not None:
        return facts
    return FileFacts(path=facts.path, size=facts.size, turned=facts.turned, values=tuple(int(value) for value in values))
