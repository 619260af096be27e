"""Files of images: their suffixes, which JPEG is whole, lists of names, and ImageNet's normalisation."""

import errno
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from PIL import Image

ItemT = TypeVar("ItemT")

# Mean and deviation of RGB values from 0 to 1, by which every backbone here wants its input normalised.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Endings of image files in lower case: those of torchvision's `ImageFolder`.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})

MOST_PIXELS = 89_478_485  # Pillow's limit of what is no attack
# Of larger images, Pillow warns, twice as large ones it refuses; here, `require_decodable` refuses both.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_START, _PIXELS, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
# Not a byte of compressed data, which a zero follows, nor a restart within it.
_SEGMENT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SYSTEM_FILES = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")


def is_jpeg(content: bytes) -> bool:
    return content.startswith(_START)


def ends_whole(tail: bytes) -> bool:
    """Whether the last bytes of a file are a JPEG's end marker; where not, `breaks_off` decides from the whole file."""
    return tail.endswith(_END)


def breaks_off(content: bytes) -> bool:
    """Whether a JPEG file, given whole, lacks its end; decoders fill the missing part with grey.

    Anything may follow the end, such as the film of a motion photo, in which the bytes of markers mean nothing. So the markers are
    followed from the start, over what lies between them. A file whose last bytes are an end is whole once its pixels have begun;
    before, the end is that of a thumbnail.
    """
    if not is_jpeg(content):
        return False
    position = len(_START)
    while segment := _SEGMENT.search(content, position):
        if segment[0] == _END or (segment[0] == _PIXELS and ends_whole(content)):
            return False
        position = segment.end() + int.from_bytes(content[segment.end() : segment.end() + 2], "big")
    return True


def is_hidden(name: str) -> bool:
    """Whether nobody means an entry of a folder: hidden files such as macOS's `._a.jpg`, `.ipynb_checkpoints`, `Thumbs.db`."""
    return name.startswith(".") or name in _SYSTEM_FILES


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a path object for each of a million is slow


def walk_files(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder at any depth, as text, with the names of the files in it, but for what is hidden; OSError if it cannot be listed.

    Links to folders are followed, and each folder is entered once.
    """

    def fail(error: OSError) -> NoReturn:  # by itself, os.walk leaves out the folders that it cannot list
        raise error

    entered = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        status = os.stat(parent)  # noqa: PTH116 - os.walk speaks in strings
        if (inode := (status.st_dev, status.st_ino)) in entered:
            folders.clear()
            continue
        entered.add(inode)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield parent, [name for name in files if not is_hidden(name)]


def read_file(path: Path) -> bytes:
    """The content of a file; OSError also for a pipe or a device, whose end a reader might wait for in vain."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        require_file(os.fstat(stream.fileno()), path)
        return stream.read()


def require_file(state: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, pipe or device, not a file", str(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a list, such as names of images, without surrounding spaces and empty ones; ValueError if it is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # Windows editors begin a file with a mark
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def require_decodable(size: tuple[int, int]) -> None:
    """ValueError for an image of a (width, height) whose pixels could fill the memory: a file of a few bytes may state any size."""
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels, more than the {MOST_PIXELS:,} that are decoded")


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image in RGB; of 16 bits of grey the upper 8 stay, where Pillow itself would turn nearly all to white.

    ValueError for numbers of 32 bits, whose range nobody knows.
    """
    require_decodable(image.size)
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("grey of 32 bits; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda level: level * (1 / 256) + 0).convert("L")
    return image.convert("RGB")


def evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """The items in the middle of `count` equal parts; all of them if there are no more."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]
