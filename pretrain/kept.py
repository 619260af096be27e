"""Older checkpoints beside the one that a run continues from: how they are named, made and removed."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from common.files import write_atomically


def name_by_step(path: Path, step: int) -> Path:
    """Where one of the newest checkpoints is kept until newer ones replace it."""
    return path.with_name(f"{path.stem}_step{step:08d}{path.suffix}")


def name_by_epoch(path: Path, epochs: int) -> Path:
    """Where the checkpoint after every K-th epoch stays for good."""
    return path.with_name(f"{path.stem}_epoch{epochs:04d}{path.suffix}")


def link_or_copy(path: Path, other: Path) -> None:
    """Give a checkpoint a second name that outlives its replacement: a hard link, or a copy where there are none."""

    def make(temporary: Path) -> None:
        try:
            os.link(path, temporary)
        except OSError:
            # A file system without hard links (many network and FUSE ones). If it is full, the copy says so.
            shutil.copyfile(path, temporary)

    write_atomically(other, make)


def prune(folder: Path, kept: Sequence[str], newest: int) -> list[str]:
    """Remove the oldest of a run's kept checkpoints.

    Args:
        folder: Where they are.
        kept: Their names, oldest first; no other file is touched.
        newest: How many stay.

    Returns:
        The names that stay.
    """
    staying = list(kept[len(kept) - newest :]) if newest < len(kept) else list(kept)
    for name in kept[: len(kept) - len(staying)]:
        (folder / name).unlink(missing_ok=True)
    return staying
