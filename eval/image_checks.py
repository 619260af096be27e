"""What the data checks of all tasks share: listing a folder of images, and looking at many image files. Nothing here loads torch."""

import multiprocessing
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from common.files import CONTROLS, one_line
from common.images import breaks_off, ends_whole, is_hidden, is_jpeg, require_decodable, require_file, to_rgb
from common.launch import usable_cores
from eval.findings import Finding, Kind, about, merged

Outcome = TypeVar("Outcome")

Decode = Callable[[Path], npt.NDArray[Any] | None]
"""Decodes a file, which is of a label map if it returns pixels; raises one of Pillow's errors, such as ValueError, for damage."""

UNWRITABLE = "names have control characters or are not in UTF-8"
_SPELLINGS = {".jpg": (".jpg", ".jpeg", ".jpe"), ".png": (".png",)}
_UNFINISHED = (".part", ".crdownload", ".aria2", ".tmp", ".download", ".partial")
_LFS_START = b"version https://git-lfs.github.com/"
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_SCALED_GREYS = ((2, 0), (4, 0))  # bits and kind of colour, of a PNG
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
SHOWN_AFTER_S = 0.5  # for what is done sooner, a progress bar would only flicker
_FILES_PER_PROCESS = 256  # fewer are read sooner than a process starts
# Pillow raises any of these for a damaged file; it reports broken PNG chunks as SyntaxError.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def list_images(folder: Path, suffix: Literal[".jpg", ".png"], root: Path) -> tuple[dict[str, Path], list[Finding]]:
    """The images of one format in a folder by their names without suffix, sorted, and what else is in it, relative to `root`.

    A folder that is not there has none. The suffix may have any of its spellings (`a.JPG`, `a.jpeg`). Two images of one name are
    `wrong`; hidden files, unfinished downloads, folders and other files are notes.
    """
    if not folder.is_dir():
        return {}, []
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    images: dict[str, Path] = {}
    findings = []
    for name in sorted(kinds):
        kind: Kind = "note"
        advice = ""
        if is_hidden(name):
            text = "files that operating systems leave are ignored"
        elif CONTROLS.search(name):
            kind, text, advice = "wrong", UNWRITABLE, "rename them"
        elif kinds[name] and name == folder.name:
            kind, text = "misplaced", f"{folder.relative_to(root).as_posix()} is in another folder of its name"
            advice = "move its content up"
        elif kinds[name]:
            text = "folders within folders of images are ignored"
        elif name.lower().endswith(_UNFINISHED):
            text, advice = "files are left from an interrupted download", "remove them"
        elif Path(name.lower()).suffix not in _SPELLINGS[suffix]:
            text = "files do not belong in their folder"
        elif (stem := Path(name).stem) in images:
            kind, text, advice = "wrong", f"files have the name of another image beside them, {images[stem].name}", "remove one"
        else:
            images[stem] = folder / name
            continue
        findings.append(Finding(kind, text, (one_line((folder / name).relative_to(root).as_posix()),), advice))
    return images, merged(findings)


class ImageFacts(NamedTuple):
    """What is known of an image file."""

    path: Path
    size: tuple[int, int] | None = None  # (width, height) by its header, in pixels
    damage: str = ""  # what is wrong, as a phrase about several files
    detail: str = ""  # the decoder's words
    values: tuple[int, ...] | None = None  # the different ones of a label map, ascending; None where it was not decoded


def look_at(path: Path, decode: Decode | None = None, labels: bool = False) -> ImageFacts:
    """Check an image's header and end; with `decode` also what is between, and a PNG's checksums; `labels` have one channel."""
    facts = ImageFacts(path)
    try:
        require_file(path.stat(), path)
        with path.open("rb") as stream:
            head = stream.read(64)
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - len(_PNG_END)))
            tail = stream.read()
            if damage := _damage_at_the_start(head):
                return facts._replace(damage=damage)
            if labels and head.startswith(_PNG_START) and tuple(head[24:26]) in _SCALED_GREYS:
                return facts._replace(damage="greys of 2 or 4 bits, which decoders stretch to other numbers")
            with Image.open(stream) as image:
                require_decodable(image.size)
                facts = facts._replace(size=image.size)
        if _ends_early(path, head, tail):
            return facts._replace(damage="cut off before their end")
        if labels and len(image.getbands()) != 1:
            return facts._replace(damage="colour images, not one number per pixel")
        if labels and image.format != "PNG":
            return facts._replace(damage=f"{image.format} images in a PNG's name, which may have changed the numbers")
        pixels = decode(path) if decode else None
        if decode and image.format == "PNG":
            with Image.open(path) as fresh:
                fresh.verify()  # the checksums of its chunks, which Pillow ignores when it decodes
        if pixels is None:
            return facts
        # Counting takes 1.3 ms for a mask of DAVIS, sorting 3 ms.
        values = np.flatnonzero(np.bincount(pixels.ravel())) if pixels.dtype == np.uint8 else np.unique(pixels)
        return facts._replace(values=tuple(values.tolist()))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return facts._replace(damage="unreadable (broken links, permissions)", detail=error.strerror or "")
    except UnidentifiedImageError:
        return facts._replace(damage="not images by their first bytes")
    except PILLOW_ERRORS as error:
        return facts._replace(damage="damaged inside", detail=" ".join(str(error).removeprefix(f"{path}: ").split()))


def text_damage(path: Path) -> str:
    """Why a text file is not the right one by its first bytes, as `ImageFacts.damage`; empty if nothing is wrong with them."""
    with path.open("rb") as stream:
        return _damage_at_the_start(stream.read(64))


def _damage_at_the_start(head: bytes) -> str:
    if not head:
        return "empty (0 bytes)"
    if head.startswith(_LFS_START):
        return "Git LFS pointers instead of the files themselves (`git lfs pull` brings those)"
    return "web pages instead of the files" if head.lstrip().lower().startswith(_PAGE_STARTS) else ""


def _ends_early(path: Path, head: bytes, tail: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. Bytes may follow the end; then only the whole file tells."""
    if is_jpeg(head):
        return not ends_whole(tail) and breaks_off(path.read_bytes())
    return head.startswith(_PNG_START) and tail != _PNG_END and _PNG_END not in path.read_bytes()


def by_pillow(path: Path) -> None:
    """Decode an image by Pillow, which passes over slips that ImageNet's own files have."""
    with Image.open(path) as image:
        to_rgb(image)


def label_map(path: Path) -> npt.NDArray[Any]:
    """Decode a label map by Pillow."""
    with Image.open(path) as image:
        require_decodable(image.size)
        return np.asarray(image)


def by_opencv(path: Path) -> None:
    """Decode an image by OpenCV and take the decoder's warnings for damage.

    libjpeg only warns of damage, on the process's standard error, and OpenCV returns the image as if all were well. A JPEG has no
    checksum: a few changed bits that still decode go unseen.
    """
    import cv2  # slow to load, and only needed to decode everything

    with tempfile.TemporaryFile() as warnings:
        saved = os.dup(2)
        os.dup2(warnings.fileno(), 2)
        try:
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise ValueError(str(error)) from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        warnings.seek(0)
        said = warnings.read().decode(errors="replace")
    if said or pixels is None:
        raise ValueError(said or "the decoder refuses it")


def look_at_all(
    paths: Sequence[Path], jobs: int, what: str, decode: Decode | None = None, labels: bool = False
) -> Iterator[ImageFacts]:
    """Look at many files in the order of the paths, with a progress bar named `what` where it takes a while.

    `jobs` are processes at most, 0 for one per usable core; `decode` is a function that they can import.
    """
    workers = min(jobs or usable_cores(), len(paths) // _FILES_PER_PROCESS)
    facts = in_processes(workers, partial(look_at, decode=decode, labels=labels), paths, chunksize=32)
    yield from tqdm(facts, desc=what, total=len(paths), unit="file", delay=SHOWN_AFTER_S, mininterval=0.5, leave=False)


def in_processes(workers: int, work: Callable[..., Outcome], *items: Iterable[Any], chunksize: int = 1) -> Iterator[Outcome]:
    """As `map`, in several new processes, or in this one where one is enough."""
    if workers <= 1:
        yield from map(work, *items)
        return
    # Not forks: a fork of a process with threads (torch's, OpenCV's) may hang.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        with _without_main():
            outcomes = pool.map(work, *items, chunksize=chunksize)  # which starts the processes
        yield from outcomes
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, what waits is not worth waiting for


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run the user's script, such as a training, once more; our work needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def same_folder_findings(root: Path, first: str, second: str) -> list[Finding]:
    """A finding if two folders below `root` are one, so that a backbone would be tested on what it has learned."""
    same = (root / first).resolve() == (root / second).resolve()
    text = f"{root}: {first} and {second} are the same folder"
    return [Finding("wrong", text, advice="test on other images")] if same else []


def damage_findings(facts: Iterable[ImageFacts], root: Path, advice: str = "") -> list[Finding]:
    """One finding for each sort of damage."""
    findings = []
    for fact in facts:
        if fact.damage:
            name = fact.path.relative_to(root).as_posix() + (f" ({fact.detail})" if fact.detail else "")
            findings.append(Finding("damaged", f"files are {fact.damage}", (name,), advice))
    return merged(findings)


def size_findings(
    pairs: Iterable[tuple[ImageFacts, tuple[int, int] | None]], root: Path, reference: str, advice: str = ""
) -> list[Finding]:
    """Findings about images of another (width, height) than `reference`, such as `their label maps`, states, where it is known."""
    wrong = [
        f"{fact.path.relative_to(root).as_posix()} ({fact.size[0]} x {fact.size[1]} instead of {expected[0]} x {expected[1]})"
        for fact, expected in pairs
        if fact.size is not None and expected is not None and fact.size != expected
    ]
    return about("wrong", f"images differ in size from {reference}", wrong, advice)


def are_inside(boxes: npt.NDArray[np.number], size: tuple[int, int], spare: float) -> bool:
    """Whether no end of the boxes [N, 4] is farther than `spare` pixels outside an image of (width, height)."""
    return bool((boxes[:, :2] >= -spare).all() and (boxes[:, 2:] <= np.array(size) + spare).all())
