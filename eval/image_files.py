"""Examines the image files of a data set, many at a time: their header and their end, or everything by decoding them.

Loads neither torch nor OpenMMLab, so that worker processes start at once.
"""

import io
import multiprocessing
import os
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from common.jpeg import breaks_off
from eval.findings import Finding

_LFS_START = b"version https://git-lfs.github.com/"
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_END, _PNG_END = b"\xff\xd9", b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
_HEAD_BYTES = 64
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)

# Fewer files are read sooner than a process starts.
_FILES_PER_PROCESS = 256


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image file."""

    path: Path
    size: tuple[int, int] | None = None
    """(width, height) by its header; None where it has none."""
    turned: bool = False
    """Whether its EXIF orientation swaps the two when it is read."""
    damage: str = ""
    """What is wrong, as a phrase that follows `files are`; empty if nothing was seen."""
    detail: str = ""
    """What the decoder says."""
    values: tuple[int, ...] = ()
    """The different values of a label map, ascending; empty where it was not decoded."""


def look(path: Path) -> ImageFacts:
    """Read an image's header and its last bytes."""
    return _examine(path)


def look_at_labels(path: Path) -> ImageFacts:
    """As `look`, for a label map: an image with one channel."""
    return _examine(path, labels=True)


def decode(path: Path) -> ImageFacts:
    """Decode an image by OpenCV, as detection and segmentation do, and take the decoder's warnings for damage.

    A JPEG has no checksum: a few changed bits that still decode go unseen.
    """
    return _examine(path, lambda content: (_opencv_fault(content), ()))


def decode_labels(path: Path) -> ImageFacts:
    """Decode a label map and note its values."""
    return _examine(path, lambda content: ("", np.unique(np.asarray(Image.open(io.BytesIO(content)))).tolist()), labels=True)


def survey(paths: Sequence[Path], examine: Callable[[Path], ImageFacts], jobs: int, what: str) -> list[ImageFacts]:
    """Examine files in several processes, with a progress bar.

    Args:
        paths: The files; the answers are in their order.
        examine: A function of a module, so that other processes find it.
        jobs: Most processes; 0 for one per usable core.
        what: Label of the progress bar.
    """
    workers = min(jobs or len(os.sched_getaffinity(0)), len(paths) // _FILES_PER_PROCESS)
    facts = map(examine, paths) if workers <= 1 else _in_processes(paths, examine, workers)
    return list(tqdm(facts, desc=what, total=len(paths), unit="file", delay=0.5, mininterval=0.5, leave=False))


def damaged_files(facts: Iterable[ImageFacts], root: Path, advice: str) -> list[Finding]:
    """One finding per kind of damage.

    Args:
        facts: Any files of the data set.
        root: Folder of the data set, to which names are relative.
        advice: How to get whole files.
    """
    by_damage: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        if fact.damage:
            detail = f" ({fact.detail})" if fact.detail else ""
            by_damage[fact.damage].append(f"{fact.path.relative_to(root).as_posix()}{detail}")
    pull = "run `git lfs pull` in the repository that they come from"
    return [
        Finding("damaged", f"{len(names)} files are {damage}", tuple(names), pull if "Git LFS" in damage else advice)
        for damage, names in by_damage.items()
    ]


def other_sizes(pairs: Iterable[tuple[ImageFacts, tuple[int, int]]], root: Path, reference: str) -> list[Finding]:
    """Findings about images whose size is not what belongs to them.

    Args:
        pairs: Images with the (width, height) that they should have.
        root: Folder of the data set, to which names are relative.
        reference: What states the size, such as `their label maps`.
    """
    wrong, turned = [], []
    for fact, (width, height) in pairs:
        if fact.size is None:
            continue
        name = fact.path.relative_to(root).as_posix()
        seen = fact.size[::-1] if fact.turned else fact.size
        if (width, height) not in (fact.size, seen):
            wrong.append(f"{name} ({fact.size[0]} x {fact.size[1]} instead of {width} x {height})")
        elif (width, height) != seen:
            turned.append(name)
    findings = []
    if wrong:
        text = f"{len(wrong)} images differ in size from {reference}"
        findings.append(Finding("wrong", text, tuple(wrong), "they were resized, or are other images"))
    if turned:
        text = f"{len(turned)} images are turned by their EXIF orientation when read, unlike {reference}"
        findings.append(Finding("note", text, tuple(turned)))
    return findings


def _in_processes(paths: Sequence[Path], examine: Callable[[Path], ImageFacts], workers: int) -> Iterator[ImageFacts]:
    # New processes, not forks: a fork of a process with threads (torch's, OpenCV's) may hang.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(examine, paths, chunksize=32)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, what has not begun is not waited for


def _examine(
    path: Path, decoded: Callable[[bytes], tuple[str, Sequence[int]]] | None = None, labels: bool = False
) -> ImageFacts:
    """Check header and end; with `decoded`, which gives a fault and the values of a label map, also the content."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            if damage := _damage_at_the_start(head):
                return ImageFacts(path, damage=damage)
            with Image.open(stream) as image:
                turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
                facts = ImageFacts(path, image.size, turned)
                if labels and len(image.getbands()) > 1:
                    return replace(facts, damage="colour images, not one number per pixel")
            if _ends_early(stream, head):
                return replace(facts, damage="cut off before their end")
        if decoded is None:
            return facts
        content = path.read_bytes()
        if content.startswith(_PNG_START):
            Image.open(io.BytesIO(content)).verify()  # the checksums of its chunks
        fault, values = decoded(content)
        return replace(facts, damage="damaged inside" if fault else "", detail=fault, values=tuple(values))
    except UnidentifiedImageError:
        return ImageFacts(path, damage="not images by their first bytes")
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return ImageFacts(path, damage="not to be opened (broken links, permissions)", detail=error.strerror or "")
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        return ImageFacts(path, damage="damaged inside", detail=str(error))


def _damage_at_the_start(head: bytes) -> str:
    if not head:
        return "empty (0 bytes)"
    if head.startswith(_LFS_START):
        return "Git LFS pointers instead of the files themselves"
    return "web pages instead of images" if head.lstrip().lower().startswith(_PAGE_STARTS) else ""


def _ends_early(stream: io.BufferedReader, head: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, length - len(_PNG_END)))
    tail = stream.read()
    if tail.endswith((_PNG_END, _JPEG_END)):
        return False
    # Bytes may follow the end; only the whole file tells.
    stream.seek(0)
    content = stream.read()
    return breaks_off(content) or (head.startswith(_PNG_START) and _PNG_END not in content)


def _opencv_fault(content: bytes) -> str:
    """What OpenCV's decoder complains of, in one line.

    libjpeg only warns of damage, on the process's standard error, and OpenCV returns the image as if all were well.
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
