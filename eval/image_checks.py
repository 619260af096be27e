"""What the data checks of all tasks share: listing a folder of images, and looking at many image files. Nothing here loads torch."""

import io
import multiprocessing
import os
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from common.images import breaks_off, ends_whole, is_jpeg
from eval.findings import Finding, about

_SPELLINGS = {".jpg": (".jpg", ".jpeg", ".jpe"), ".png": (".png",)}
_UNFINISHED = (".part", ".crdownload", ".aria2", ".tmp", ".download", ".partial")
_SYSTEM_FILES = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")
_LFS_START = b"version https://git-lfs.github.com/"
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
_ORIENTATION = 0x0112
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)
_FILES_PER_PROCESS = 256  # fewer are read sooner than a process starts
# Pillow raises these for broken headers; it reports broken PNG chunks as SyntaxError.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def is_hidden(name: str) -> bool:
    """Whether an operating system left it: hidden files such as the `._a.jpg` of macOS, `Thumbs.db`, `__MACOSX`."""
    return name.startswith(".") or name in _SYSTEM_FILES


def list_images(folder: Path, suffix: Literal[".jpg", ".png"], root: Path) -> tuple[list[str], list[Finding]]:
    """The names in a folder whose files should all end in `suffix`, sorted, and what else is in it, with names relative to `root`.

    Files with another spelling of the suffix (`a.JPG`) are `misnamed`; hidden files, unfinished downloads, folders and other files
    are notes.
    """
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    images = {name for name, is_folder in kinds.items() if name.endswith(suffix) and not is_folder and not is_hidden(name)}
    sorts: dict[str, list[str]] = defaultdict(list)
    for name in sorted(kinds.keys() - images):
        lower = name.lower()
        if is_hidden(name):
            sort = "hidden"
        elif kinds[name]:
            sort = "nested" if name == folder.name else "folder"
        elif lower.endswith(_UNFINISHED):
            sort = "unfinished"
        elif Path(lower).suffix in _SPELLINGS[suffix] and f"{Path(name).stem}{suffix}" not in images:
            sort = "misnamed"
        else:
            sort = "other"
        sorts[sort].append((folder / name).relative_to(root).as_posix())
    place = folder.relative_to(root).as_posix()
    return sorted(images), [
        *about("misnamed", f"files do not end in {suffix}", sorts["misnamed"], "rename them"),
        *about("misplaced", f"{place} is in another folder of its name", sorts["nested"], "move its content up"),
        *about("note", "files are left from an interrupted download", sorts["unfinished"], "remove them"),
        *about("note", "nobody reads the files that operating systems leave", sorts["hidden"]),
        *about("note", "nobody reads folders within folders of images", sorts["folder"]),
        *about("note", "files do not belong in their folder", sorts["other"]),
    ]


class ImageFacts(NamedTuple):
    """What is known of an image file.

    - `size`: (width, height) by its header, in pixels; `turned`: whether its EXIF orientation swaps the two when it is read.
    - `damage`: what is wrong, as a phrase about several files, empty if nothing was seen; `detail`: the decoder's words.
    - `values`: the different values of a label map, ascending; None where it was not decoded.
    """

    path: Path
    size: tuple[int, int] | None = None
    turned: bool = False
    damage: str = ""
    detail: str = ""
    values: tuple[int, ...] | None = None


def look_at_image(path: Path) -> ImageFacts:
    """Read an image's header and its end."""
    return _look(path)


def look_at_labels(path: Path) -> ImageFacts:
    """As `look_at_image`, for a label map, which has one channel."""
    return _look(path, labels=True)


def decode_image(path: Path) -> ImageFacts:
    """Decode an image by OpenCV and take the decoder's warnings for damage.

    A JPEG has no checksum: a few changed bits that still decode go unseen.
    """
    return _look(path, lambda image: _decoder_fault(path.read_bytes()))


def decode_leniently(path: Path) -> ImageFacts:
    """Decode an image by Pillow, which passes over slips that ImageNet's own files have."""

    def decode(image: Image.Image) -> None:
        image.convert("RGB")

    return _look(path, decode)


def decode_labels(path: Path) -> ImageFacts:
    """Decode a label map and collect its values; the checksums of its PNG chunks must be right."""
    values: list[int] = []

    def decode(image: Image.Image) -> None:
        values.extend(np.unique(np.asarray(image)).tolist())

    facts = _look(path, decode, labels=True)
    return facts if facts.damage else facts._replace(values=tuple(values))


def look_at_all(
    paths: Sequence[Path], look: Callable[[Path], ImageFacts], jobs: int, what: str, shown_after_s: float = 0.5
) -> Iterator[ImageFacts]:
    """Look at many files in the order of the paths, with a progress bar named `what` where it takes longer than `shown_after_s`.

    `look` is one of the functions above, which other processes can import; `jobs` are processes at most, 0 for one per usable core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(jobs or cores, len(paths) // _FILES_PER_PROCESS)
    facts = map(look, paths) if workers <= 1 else _look_in_processes(paths, look, workers)
    yield from tqdm(facts, desc=what, total=len(paths), unit="file", delay=shown_after_s, mininterval=0.5, leave=False)


def damage_findings(facts: Iterable[ImageFacts], root: Path, advice: str = "") -> list[Finding]:
    """One finding for each sort of damage."""
    by_damage: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        if fact.damage:
            detail = f" ({fact.detail})" if fact.detail else ""
            by_damage[fact.damage].append(f"{fact.path.relative_to(root).as_posix()}{detail}")
    return [Finding("damaged", f"files are {damage}", tuple(names), advice) for damage, names in by_damage.items()]


def size_findings(
    pairs: Iterable[tuple[ImageFacts, tuple[int, int] | None]], root: Path, reference: str, advice: str = ""
) -> list[Finding]:
    """Findings about images of another (width, height) than `reference`, such as `their label maps`, states, where it is known."""
    wrong, turned = [], []
    for fact, expected in pairs:
        if fact.size is None or expected is None:
            continue
        name = fact.path.relative_to(root).as_posix()
        read = fact.size[::-1] if fact.turned else fact.size
        if expected not in (fact.size, read):
            wrong.append(f"{name} ({fact.size[0]} x {fact.size[1]} instead of {expected[0]} x {expected[1]})")
        elif expected != read:
            turned.append(name)
    return [
        *about("wrong", f"images differ in size from {reference}", wrong, advice),
        *about("note", f"the EXIF orientation turns images when they are read, unlike {reference}", turned),
    ]


def text_damage(path: Path) -> str:
    """Why a text file is not the right one by its first bytes, as `ImageFacts.damage`; empty if nothing is wrong with them."""
    with path.open("rb") as stream:
        return _damage_at_the_start(stream)


def _look(path: Path, decode: Callable[[Image.Image], str | None] | None = None, labels: bool = False) -> ImageFacts:
    """Check header and end; then `decode`, which returns a fault it finds, and the checksums of a PNG."""
    try:
        with path.open("rb") as stream:
            if damage := _damage_at_the_start(stream):
                return ImageFacts(path, damage=damage)
            with Image.open(stream) as image:
                turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in _TURNED_BY_A_QUARTER
                facts = ImageFacts(path, size=image.size, turned=turned)
                if _ends_early(stream):
                    return facts._replace(damage="cut off before their end")
                if labels and len(image.getbands()) != 1:
                    return facts._replace(damage="colour images, not one number per pixel")
                detail = (decode(image) or _png_fault(path, image)) if decode else ""
                return facts._replace(damage="damaged inside", detail=detail) if detail else facts
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return ImageFacts(path, damage="unreadable (broken links, permissions)", detail=error.strerror or "")
    except UnidentifiedImageError:
        return ImageFacts(path, damage="not images by their first bytes")
    except _PILLOW_ERRORS as error:
        return ImageFacts(path, damage="damaged inside", detail=" ".join(str(error).split()))


def _damage_at_the_start(stream: io.BufferedReader) -> str:
    head = stream.read(64)
    stream.seek(0)
    if not head:
        return "empty (0 bytes)"
    if head.startswith(_LFS_START):
        return "Git LFS pointers instead of the files themselves (`git lfs pull` brings those)"
    return "web pages instead of the files" if head.lstrip().lower().startswith(_PAGE_STARTS) else ""


def _ends_early(stream: io.BufferedReader) -> bool:
    """Whether a JPEG or PNG lacks its end; keeps the position in the stream."""
    position = stream.tell()
    stream.seek(0)
    head = stream.read(len(_PNG_START))
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - len(_PNG_END)))
    tail, early = stream.read(), False
    if (is_jpeg(head) and not ends_whole(tail)) or (head == _PNG_START and tail != _PNG_END):
        # Bytes may follow the end; only the whole file tells.
        stream.seek(0)
        content = stream.read()
        early = breaks_off(content) if is_jpeg(head) else _PNG_END not in content
    stream.seek(position)
    return early


def _png_fault(path: Path, image: Image.Image) -> str:
    """What is wrong with a PNG's chunks and their checksums, which Pillow ignores when it decodes; empty for other formats."""
    if image.format == "PNG":
        with Image.open(path) as fresh:
            try:
                fresh.verify()
            except _PILLOW_ERRORS as error:
                return str(error)
    return ""


def _decoder_fault(content: bytes) -> str:
    """What OpenCV's decoder complains of, in one line; empty if nothing.

    libjpeg only warns of damage, on the process's standard error, and OpenCV returns the image as if all were well.
    """
    import cv2  # slow to load, and only needed to decode everything

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


def _look_in_processes(paths: Sequence[Path], look: Callable[[Path], ImageFacts], workers: int) -> Iterator[ImageFacts]:
    # New processes, not forks: a fork of a process with threads (torch's, OpenCV's) may hang.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(look, paths, chunksize=32)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, what waits is not worth waiting for
