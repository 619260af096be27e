"""The videos that labels are propagated through, and their files. Loads no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from common.images import is_hidden
from eval.propagation.masks import Mask, read_mask, single_object, without_void

_TRAILING_NUMBER = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True, kw_only=True)
class VideoSequence:
    """One sequence, all of whose files exist: its frames in order, masks of the first or of every frame.

    `size` is the (height, width) of the first frame; with `one_object`, all objects count as one.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    one_object: bool
    size: tuple[int, int] = (0, 0)

    def first_mask(self) -> Mask:
        """Object ids of the first frame, undecided pixels as background.

        The authors' script would take them for an object of id 255, which the official evaluation then refuses.
        """
        mask = read_mask(self.masks[0])
        return single_object(mask) if self.one_object else without_void(mask)


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def check_numbering(frames: Sequence[Path], root: Path) -> list[str]:
    """Where numbered frames have a gap, or come in another order by their names."""
    parts = [_TRAILING_NUMBER.fullmatch(frame.stem) for frame in frames]
    for (frame, part), (following, next_part) in pairwise(zip(frames, parts, strict=True)):
        if part and next_part and part[1] == next_part[1] and int(part[2]) > int(next_part[2]):
            shown = frame.relative_to(root).as_posix()
            return [f"{shown} comes before {following.name} by its name, which is their order (fill up the numbers with zeros)"]
    if len(frames) < 3 or not all(frame.stem.isdecimal() for frame in frames):
        return []
    numbers = [int(frame.stem) for frame in frames]
    step = min(after - before for before, after in pairwise(numbers))
    for frame, (before, after) in zip(frames, pairwise(numbers), strict=False):
        if after - before != step:
            missing = frame.with_stem(str(before + step).zfill(len(frame.stem)))
            return [f"no {missing.relative_to(root).as_posix()}"]
    return []
