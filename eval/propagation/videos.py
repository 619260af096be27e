"""The videos that labels are propagated through, and their files. Loads no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from common.images import is_hidden
from eval import image_checks
from eval.findings import Finding, about
from eval.propagation.masks import VOID_ID, Mask, read_mask, single_object, without_void

MasksWanted = Literal["first", "all", "any"]
"""Of which frames there must be masks, and which ones count: the first frame's, all, or those that are there."""

_TRAILING_NUMBER = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True, kw_only=True)
class VideoSequence:
    """One sequence, all of whose files exist: its frames in order, and masks of the first, of every or of some frames.

    `size` is the (height, width) of the first frame; with `one_object`, all objects count as one. `beginnings` has, where objects may
    appear later than in the first frame, the numbers of frames in whose masks some begin, with their ids.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    one_object: bool
    size: tuple[int, int] = (0, 0)
    beginnings: tuple[tuple[int, frozenset[int]], ...] = ()

    @property
    def fully_annotated(self) -> bool:
        return len(self.masks) == len(self.frames)

    def given_files(self) -> list[Path]:
        """The masks that propagation is given."""
        masks = {path.stem: path for path in self.masks}
        return [masks[self.frames[number].stem] for number, _ in self.beginnings] or [self.masks[0]]

    def given_masks(self) -> dict[int, Mask]:
        """Number of a frame -> the mask that propagation is given there, of the objects that begin in it."""
        if not self.beginnings:
            return {0: self.first_mask()}
        given = {}
        for path, (number, ids) in zip(self.given_files(), self.beginnings, strict=True):
            mask = read_mask(path)
            given[number] = np.where(np.isin(mask, sorted(ids)), mask, np.uint8(0))
        return given

    def first_mask(self) -> Mask:
        """Object ids of the first frame, undecided pixels as background.

        The authors' script would take them for an object of id 255, which the official evaluation then refuses.
        """
        mask = read_mask(self.masks[0])
        return single_object(mask) if self.one_object else without_void(mask)


@dataclass(frozen=True, kw_only=True)
class VideoFolders:
    """Where a data set has its videos: for each a folder of frames and one of masks, below two folders."""

    root: Path
    frames_folder: Path
    masks_folder: Path
    advice: str  # what to do about what is missing or damaged
    listing: str = "the list"  # what names the videos
    one_object: bool = False
    gaps: bool = False  # whether frames may be left out between others


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def check_numbering(frames: Sequence[Path], root: Path, with_gaps: bool = False) -> list[str]:
    """Where numbered frames come in another order by their names, or have a gap, unless the data set may have some."""
    parts = [_TRAILING_NUMBER.fullmatch(frame.stem) for frame in frames]
    for (frame, part), (following, next_part) in pairwise(zip(frames, parts, strict=True)):
        if part and next_part and part[1] == next_part[1] and int(part[2]) > int(next_part[2]):
            shown = frame.relative_to(root).as_posix()
            return [f"{shown} comes before {following.name} by its name, which is their order (fill up the numbers with zeros)"]
    if with_gaps or len(frames) < 3 or not all(frame.stem.isdecimal() for frame in frames):
        return []
    numbers = [int(frame.stem) for frame in frames]
    step = min(after - before for before, after in pairwise(numbers))
    for frame, (before, after) in zip(frames[:-1], pairwise(numbers), strict=True):
        if after - before != step:
            missing = frame.with_stem(str(before + step).zfill(len(frame.stem)))
            return [f"no {missing.relative_to(root).as_posix()}"]
    return []


def check_videos(
    folders: VideoFolders, names: Sequence[str], wanted: MasksWanted, fewest: int = 1, deep: bool = False, jobs: int = 1
) -> tuple[list[VideoSequence], list[Finding], dict[Path, frozenset[int]]]:
    """Those videos whose first frame can be read, findings about all, and the ids in each mask but background and void.

    `fewest` frames a video must have; with `deep`, frames are decoded too.
    """
    listed, findings = [], []
    for name in names:
        sequence, found = _list_video(folders, name, wanted, fewest)
        listed += [sequence] if sequence.frames else []
        findings += found
    frame_paths = [path for sequence in listed for path in sequence.frames]
    mask_paths = [path for sequence in listed for path in sequence.masks]
    decode = image_checks.by_opencv if deep else None
    frames = list(image_checks.look_at_all(frame_paths, jobs, "frames", decode))
    masks = list(image_checks.look_at_all(mask_paths, jobs, "masks", read_mask, labels=True))
    sizes = {(fact.path.parent.name, fact.path.stem): fact.size for fact in frames}
    first_sizes = {sequence.name: sizes[sequence.name, sequence.frames[0].stem] for sequence in listed}
    frame_pairs = ((fact, first_sizes[fact.path.parent.name]) for fact in frames)
    mask_pairs = ((fact, sizes[fact.path.parent.name, fact.path.stem]) for fact in masks)
    findings += [
        *image_checks.damage_findings([*frames, *masks], folders.root, folders.advice),
        *image_checks.size_findings(frame_pairs, folders.root, "the first frame of their sequence"),
        *image_checks.size_findings(mask_pairs, folders.root, "their frames"),
    ]
    background = {0} if folders.one_object else {0, VOID_ID}
    ids = {fact.path: frozenset(fact.values) - background for fact in masks if fact.values is not None}
    sized = [(sequence, first_sizes[sequence.name]) for sequence in listed]
    return [replace(sequence, size=size[::-1]) for sequence, size in sized if size is not None], findings, ids


def _list_video(folders: VideoFolders, name: str, wanted: MasksWanted, fewest: int) -> tuple[VideoSequence, list[Finding]]:
    """The files of a video, whose size is not known yet, and what is wrong with their names."""
    root, advice = folders.root, folders.advice
    stems, findings = image_checks.list_images(folders.frames_folder / name, ".jpg", root)
    masks, more = image_checks.list_images(folders.masks_folder / name, ".png", root) if stems else ({}, [])
    findings += more
    frames = list(stems.values())
    needed = {"all": frames, "first": frames[:1], "any": [path for path in frames if path.stem in masks] or frames[:1]}[wanted]
    without_mask = [f"{name}/{path.name}" for path in needed if path.stem not in masks]
    without_frame = [f"{name}/{path.name}" for stem, path in masks.items() if stem not in stems]
    no_frames = f"sequences have no frames (*.jpg) in {folders.frames_folder.relative_to(root).as_posix()}"
    gap = "the numbering of frames goes on after a gap, or differs from their order by name"
    reason = "scoring needs a mask of every frame" if wanted == "all" else "propagation starts from the first frame's mask"
    short = [f"{name} ({len(frames)})"] if wanted == "all" and 0 < len(frames) < fewest else []
    findings += [
        *about("missing", no_frames, [] if frames else [name], f"{advice}, or take them off {folders.listing}"),
        *about("missing", gap, check_numbering(frames, root, with_gaps=folders.gaps)),
        *about("missing", "frames have no mask", without_mask, reason),
        *about("missing", "masks have no frame", without_frame, advice),
        *about("wrong", f"sequences have fewer than {fewest} frames, which cannot be scored", short),
    ]
    files = tuple(masks[path.stem] for path in needed if path.stem in masks)
    return VideoSequence(name=name, frames=tuple(frames), masks=files, one_object=folders.one_object), findings


def with_beginnings(sequence: VideoSequence, ids: Mapping[Path, frozenset[int]]) -> VideoSequence:
    """The sequence with the frames in whose masks objects begin, from the ids in each of its masks."""
    masks = {path.stem: path for path in sequence.masks}
    begun: frozenset[int] = frozenset()
    beginnings = []
    for number, frame in enumerate(sequence.frames):
        if frame.stem in masks and (new := ids.get(masks[frame.stem], frozenset()) - begun):
            beginnings.append((number, new))
            begun |= new
    return replace(sequence, beginnings=tuple(beginnings))
