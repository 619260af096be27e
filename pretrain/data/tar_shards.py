"""Tar shards, as webdataset lays them out, read at random.

Images are the members whose name ends as an image's does; labels and captions beside them are left alone. Where each one begins is
read once per shard and kept in a file, so that any image can be read at any time: the order of images stays a function of seed and
epoch, whatever the number of workers and processes. Shards must not be compressed; images are already.
"""

import itertools
import logging
import os
import re
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.files import text_sha256, write_atomically
from pretrain.data.images import is_image_name
from pretrain.data.names import Names

logger = logging.getLogger(__name__)

TAR_SUFFIX = ".tar"

_OPEN_SHARDS = 64
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class ShardIndex(NamedTuple):
    """Where the images of a shard lie."""

    names: list[str]
    """Of the members, in the shard's order."""
    starts_N: npt.NDArray[np.int64]
    """Byte where each begins."""
    lengths_N: npt.NDArray[np.int64]
    """Bytes of each."""


class TarShards:
    """An `ImageSource` of the images in several shards."""

    def __init__(self, shards: Sequence[Path], indices: Sequence[ShardIndex]) -> None:
        """Store where everything lies.

        Args:
            shards: Files; images are numbered in their order.
            indices: Of each shard.
        """
        self.shards = list(shards)
        self.names = Names(f"{shard.name}/{name}" for shard, index in zip(shards, indices, strict=True) for name in index.names)
        self._starts_N = np.concatenate([index.starts_N for index in indices])
        self._lengths_N = np.concatenate([index.lengths_N for index in indices])
        self._shard_ends = np.cumsum([len(index.names) for index in indices])
        self._open: OrderedDict[int, int] = OrderedDict()

    def load(self, index: int) -> bytes:
        """See `ImageSource`."""
        length = int(self._lengths_N[index])
        content = os.pread(self._descriptor(self._shard(index)), length, int(self._starts_N[index]))
        if len(content) != length:
            raise OSError(f"the shard ends after {len(content)} of the image's {length} bytes")
        return content

    def describe(self, index: int) -> str:
        """See `ImageSource`."""
        return f"{self.shards[self._shard(index)].parent}/{self.names[index]}"

    def __getstate__(self) -> dict[str, object]:
        """Open files stay with the process."""
        return {**self.__dict__, "_open": OrderedDict()}

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._shard_ends, index, side="right"))

    def _descriptor(self, shard: int) -> int:
        """A file descriptor of a shard; those used least recently are closed when there are many."""
        if shard not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.shards[shard], os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]


def find_shards(path: Path) -> list[Path]:
    """The shards that a path names, sorted.

    Args:
        path: A .tar file, a folder of them, or several by braces: `shard-{000..012}.tar`, `{train,val}.tar`.

    Raises:
        ValueError: If there is none, or one of those named is absent.
    """
    if path.is_dir():
        shards = sorted(path.glob(f"*{TAR_SUFFIX}"))
        if not shards:
            raise ValueError(f"data.path: no {TAR_SUFFIX} file in {path}")
        return shards
    shards = sorted({Path(name) for name in expand_braces(str(path))})
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise ValueError(f"data.path: {len(missing)} of {len(shards)} shards are absent, such as {missing[0]}")
    return shards


def expand_braces(pattern: str) -> list[str]:
    """What a shell makes of `{000..012}` and `{a,b}`, several of them too but none within another.

    Raises:
        ValueError: If a pair of braces holds neither.
    """
    pieces = _BRACES.split(pattern)
    choices = [
        _alternatives(piece, pattern) if place % 2 else [piece] for place, piece in enumerate(pieces)
    ]  # every second piece was in braces
    return ["".join(parts) for parts in itertools.product(*choices)]


def _alternatives(inside: str, pattern: str) -> list[str]:
    if match := _RANGE.fullmatch(inside):
        first, last = match.groups()
        if int(first) <= int(last):
            return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    elif "," in inside:
        return inside.split(",")
    raise ValueError(
        f"data.path: {{{inside}}} in {pattern} is neither an ascending range such as {{000..012}} nor a list {{a,b}}"
    )


def open_shards(shards: Sequence[Path], cache: Path, start: int = 0) -> TarShards:
    """Read where the images of all shards lie, from the cache where it has been read before.

    Args:
        shards: Uncompressed tar files.
        cache: Folder for the indices; each belongs to a shard's path, size and time of change.
        start: The shard to begin with. Processes that begin at different ones share the work through the cache.

    Raises:
        ValueError: If a shard is damaged or compressed, or there is no image in any of them.
    """
    indices: dict[int, ShardIndex] = {}
    for number in (*range(start, len(shards)), *range(start)):
        indices[number] = _cached_index(shards[number], cache)
    if not any(index.names for index in indices.values()):
        raise ValueError(f"data.path: no image in the {len(shards)} shards, such as {shards[0]}")
    return TarShards(shards, [indices[number] for number in range(len(shards))])


def read_index(shard: Path) -> ShardIndex:
    """Go through a shard's headers.

    Raises:
        ValueError: If it is damaged, or compressed.
    """
    try:
        with tarfile.open(shard, "r:") as archive:
            members = [member for member in archive if member.isreg() and is_image_name(member.name)]
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"data.path: {shard} is damaged, or no uncompressed tar file: {error}; fetch or write it again"
        ) from error
    with shard.open("rb") as stream:
        stream.seek(end)
        # tarfile takes for the end a header that is cut off, too, or none at all.
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"data.path: {shard} is damaged at byte {end}: no tar file ends so; fetch or write it again")
    return ShardIndex(
        [member.name for member in members],
        np.array([member.offset_data for member in members], dtype=np.int64),
        np.array([member.size for member in members], dtype=np.int64),
    )


def _cached_index(shard: Path, cache: Path) -> ShardIndex:
    status = shard.stat()
    identity = f"{shard.resolve()} {status.st_size} {status.st_mtime_ns}"
    path = cache / f"{shard.stem}-{text_sha256(identity)[:16]}.npz"
    if not path.is_file():
        logger.info("reading where the images of %s lie", shard)
        index = read_index(shard)
        text = np.array("\n".join(index.names))
        write_atomically(path, lambda temporary: np.savez(temporary, text=text, starts=index.starts_N, lengths=index.lengths_N))
        return index
    try:
        with np.load(path, allow_pickle=False) as content:
            names = str(content["text"]).split("\n") if len(content["starts"]) else []
            return ShardIndex(names, content["starts"], content["lengths"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged index of {shard} ({error}); delete it, and it is written again") from error
