"""Writing files so that a reader never sees half of one, whose turn it is to write, what files may be called, and their digests."""

import errno
import hashlib
import json
import logging
import math
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # such as Lustre's and NFS's where they are mounted without locks

_LONGEST_NAME = 200  # bytes; file systems allow 255, and some files are named after a run
# In a name, these would shift the names after it in a listing, or cannot be written at all.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # of a cell that a spreadsheet would compute
"""The last four are the full-width ones of East Asian keyboards."""


def check_name(name: str, what: str, nested: bool = False) -> str:
    """Return a name that a user or a file gave to something; ValueError, which begins with `what`, if it could do harm.

    It must stay in its folder, on its line of a list, and what it is in a spreadsheet; `nested` names are relative paths.
    """
    parts = name.split("/") if nested else [name]
    strays = any(part.startswith(".") or not part or "/" in part or "\\" in part for part in parts)
    is_odd = not name.isprintable() or name != name.strip() or name.startswith(FORMULA_STARTS)
    if strays or is_odd or len(name.encode()) > _LONGEST_NAME:
        below = "a path below its folder, of names that have" if nested else "a name of"
        allowed = (
            f"{below} at most {_LONGEST_NAME} bytes, printable, without slashes and not beginning with . = + - @ or a blank"
        )
        raise ValueError(f"{what} {one_line(ascii(name), 100)}: give {allowed}")
    return name


def one_line(text: str, most: int = 700) -> str:
    """A text on one line, without control characters; of one with more than `most` characters, the beginning and the end."""
    shown = "".join(character if character.isprintable() else " " for character in text[: 2 * most] + text[2 * most :][-most:])
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most // 2 - 2]} ... {line[-(most // 2 - 3) :]}"


@contextmanager
def lock_folder(folder: Path, lock: str = LOCK_FILE, patience: float = 0) -> Iterator[None]:
    """Make this process the only one that writes into a folder, which is made; ValueError says who does so already.

    `lock` has another name where different kinds of work may share a folder; `patience` is how many seconds to wait for it. The
    operating system frees it when the process ends, however it ends, and network file systems pass it on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / lock
    held: AbstractContextManager[object]
    try:
        # filelock's substitute for locks outlives a killed process.
        held = filelock.FileLock(path, fallback_to_soft=False).acquire(timeout=patience)
    except filelock.Timeout as error:
        raise ValueError(f"{folder} is in use by {_holder(path)}; wait for its end, or choose another output folder") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s: its file system has no locks (%s): start no second run there, none would be refused", folder, error)
        held = nullcontext()
    with held:
        since = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}"
        with names_file(path):
            path.write_text(f"process {os.getpid()} on {platform.node()} since {since}\n", encoding="utf-8")
        yield


def _holder(lock: Path) -> str:
    """What the holder of a lock writes of itself, a moment after it got it; before, the file is empty or tells of an earlier one."""
    for _ in range(20):
        time.sleep(0.1)
        if text := lock.read_text(encoding="utf-8", errors="replace").strip():
            return text
    return "another process"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, flush it to disk, then rename it to `path`, whose parent folders are made.

    A reader sees the previous content or the whole new one, also after a kill or a power cut. OSErrors name the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as numpy's and Pillow's choose the format by it.
    # Processes of different containers that write into a common cache may have the same id.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(3)}.tmp{path.suffix}")
    is_special = path.exists() and not path.is_file()
    if is_special or path.absolute().parent == Path("/dev"):  # root could replace a device, or /dev/stdout, by a file
        raise FileExistsError(errno.EEXIST, "there is a folder, pipe or device of that name; give that of a file", str(path))
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except Exception as error:
        # torch closes its archive after a failed write and complains of that; the failure itself, if any, comes before.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) and re.search("iostream error|inline_container", f"{error} {cause}"):
            cause = OSError(errno.ENOSPC, "torch cannot write it; the disk is full, or fails")
        if number := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors'
            cause = OSError(int(number[1]), os.strerror(int(number[1])))
        if not isinstance(cause, OSError):
            raise
        if cause.errno is not None:
            cause.filename = str(path)
        raise cause from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Have OSErrors of writing, such as that of a full disk, say which file is meant."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def remove_leftovers(folder: Path, pattern: str = ".*.tmp.*") -> None:
    """Remove the temporary files that killed writers left in a folder. Only for who holds what the pattern names."""
    for leftover in folder.glob(pattern):
        leftover.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where it gives a name twice, of which Python would keep the last."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def parse_json(text: str) -> Any:
    """What a JSON text holds; ValueError where it is nested too deeply, repeats a name, or has numbers of more than 64 bits."""

    def real(written: str) -> float:
        if not math.isfinite(float(written)):
            raise ValueError(f"{one_line(written, 40)} is no number of 64 bits")
        return float(written)

    def integer(written: str) -> int:
        if not -(2**63) <= real(written) <= 2**64 or not -(2**63) <= int(written) < 2**64:
            raise ValueError(f"{one_line(written, 40)} is no number of 64 bits")
        return int(written)

    try:
        return json.loads(text, parse_int=integer, parse_float=real, parse_constant=real, object_pairs_hook=without_repetition)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
