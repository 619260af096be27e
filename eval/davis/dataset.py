"""The DAVIS layout: which sequences, frames and masks there are, and what is missing.

ROOT/ImageSets/2017/val.txt             one sequence per line
ROOT/JPEGImages/480p/SEQUENCE/*.jpg     frames
ROOT/Annotations/480p/SEQUENCE/*.png    masks: of every frame, or of the first one where nothing is to be scored
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image

from eval.davis.masks import Mask, MaskError, read_mask, read_mask_size, single_object, without_void

ALL_SEQUENCES = "all"
"""The split that needs no list: every folder of frames."""

FEWEST_FRAMES = 3
"""That a sequence can be scored by: neither its first frame counts nor its last."""

_MOST_NAMES_IN_A_MESSAGE = 5
_TRAILING_NUMBER = re.compile(r"(.*?)(\d+)")


class DavisDataError(ValueError):
    """A dataset folder that lacks something; the message says what was expected where."""


@dataclass(frozen=True, kw_only=True)
class DavisSplit:
    """Which part of which dataset folder."""

    root: Path
    """The folder that holds ImageSets, JPEGImages and Annotations."""
    split: str = "val"
    """Name of the list in ImageSets, or `all`."""
    year: str = "2017"
    """Which DAVIS: 2017 tells objects apart, 2016 counts them all as one."""
    resolution: str = "480p"
    """Folder below JPEGImages and Annotations; `.` where the sequences lie directly in them."""
    sequences: tuple[str, ...] = ()
    """Only these; empty for the whole split."""

    @classmethod
    def from_options(cls, root: Path, split: str, year: str, resolution: str, sequences: str) -> "DavisSplit":
        """The chosen data from a command's options; `sequences` is separated by commas."""
        chosen = tuple(name.strip() for name in sequences.split(",") if name.strip())
        return cls(root=root, split=split, year=year, resolution=resolution, sequences=chosen)

    @property
    def frames_folder(self) -> Path:
        """Where the sequences' frames lie."""
        return self.root / "JPEGImages" / self.resolution

    @property
    def masks_folder(self) -> Path:
        """Where the sequences' masks lie."""
        return self.root / "Annotations" / self.resolution


@dataclass(frozen=True, kw_only=True)
class VideoSequence:
    """One sequence; all its files exist."""

    name: str
    """Name of its folder."""
    frames: tuple[Path, ...]
    """In order."""
    masks: tuple[Path, ...]
    """Of the first frame, or of every frame."""
    one_object: bool
    """Whether all objects count as one."""
    size: tuple[int, int]
    """(height, width) of the first frame."""

    def first_mask(self) -> Mask:
        """Object ids of the first frame, undecided pixels as background.

        The authors' script would take them for an object of id 255, which the official evaluation then refuses.

        Raises:
            MaskError: If the file is damaged.
            DavisDataError: If its size is not the frame's.
        """
        mask = read_mask(self.masks[0])
        _check_size(self.masks[0], (mask.shape[0], mask.shape[1]), self.size)
        return single_object(mask) if self.one_object else without_void(mask)


def sequence_names(split: DavisSplit) -> list[str]:
    """Names of the chosen sequences, in the order of the list.

    Raises:
        DavisDataError: If the list is missing or empty, or a chosen sequence is not in it.
    """
    if split.split == ALL_SEQUENCES:
        if not split.frames_folder.is_dir():
            raise DavisDataError(f"{split.frames_folder}: no such folder; expected one folder of frames per sequence there")
        names = sorted(path.name for path in split.frames_folder.iterdir() if path.is_dir())
    else:
        names = read_image_set(image_set_path(split))
    if unknown := [name for name in split.sequences if name not in names]:
        raise DavisDataError(f"no sequence {', '.join(unknown)} in split {split.split!r}; it has {_some(names)}")
    if not names:
        raise DavisDataError(f"split {split.split!r} of {split.root} has no sequences")
    return [name for name in names if not split.sequences or name in split.sequences]


def image_set_path(split: DavisSplit) -> Path:
    """Where the split's list lies: by year, or, in the original download of DAVIS-2016, by resolution.

    Raises:
        DavisDataError: If there is none.
    """
    folder = split.root / "ImageSets"
    candidates = [folder / split.year / f"{split.split}.txt"]
    if split.year == "2016":
        candidates.append(folder / split.resolution / f"{split.split}.txt")
    for path in candidates:
        if path.is_file():
            return path
    raise DavisDataError(
        f"{candidates[0]}: no such file; {split.root} should be a DAVIS folder with ImageSets/{split.year}, "
        f"JPEGImages/{split.resolution} and Annotations/{split.resolution}"
    )


def read_image_set(path: Path) -> list[str]:
    """Sequences of a list: a name per line, or (DAVIS-2016) a frame and a mask per line, whose folder is the sequence."""
    names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(Path(name).parent.name if name.endswith(".jpg") else name for name in names))


def find_sequences(split: DavisSplit, all_masks: bool) -> list[VideoSequence]:
    """The chosen sequences, after checking that every file that a run will want is there.

    Args:
        split: Which.
        all_masks: Whether every frame must have a mask that can be scored, by its header, or only the first frame one.

    Raises:
        DavisDataError: With what is missing and where it was expected.
    """
    sequences, problems = [], []
    for name in sequence_names(split):
        try:
            sequences.append(_find_sequence(split, name, all_masks))
        except (DavisDataError, MaskError) as error:
            problems.append(str(error))
    if problems:
        raise DavisDataError(_some(problems, separator="; "))
    return sequences


def check_data(root: Path, split: str = "val", all_masks: bool = True) -> None:
    """Raise DavisDataError with everything that a run on a split of DAVIS-2017 would miss; see `find_sequences`."""
    find_sequences(DavisSplit(root=root, split=split), all_masks)


def _find_sequence(split: DavisSplit, name: str, all_masks: bool) -> VideoSequence:
    frames_folder, masks_folder = split.frames_folder / name, split.masks_folder / name
    frames = sorted(frames_folder.glob("*.jpg"))
    if not frames:
        raise DavisDataError(f"{frames_folder}: no frames (*.jpg) of sequence {name} there")
    _check_numbering(frames)
    masks = [masks_folder / f"{frame.stem}.png" for frame in frames]
    present = {path.name for path in masks_folder.glob("*.png")}
    wanted = masks if all_masks else masks[:1]
    if missing := [mask.name for mask in wanted if mask.name not in present]:
        reason = "scoring needs a mask of every frame" if all_masks else "propagation starts from the first frame's mask"
        raise DavisDataError(f"{masks_folder}: no {_some(missing)}; {reason}")
    if orphans := sorted(present - {mask.name for mask in masks}):
        raise DavisDataError(f"{frames_folder}: no frames for the masks {_some(orphans)}")
    try:
        with Image.open(frames[0]) as image:
            size = (image.height, image.width)
    except OSError as error:
        raise DavisDataError(f"{frames[0]}: not a JPEG, or a damaged one") from error
    if all_masks:
        check_length(masks_folder, len(masks))
        for mask in masks:
            _check_size(mask, read_mask_size(mask), size)
    return VideoSequence(name=name, frames=tuple(frames), masks=tuple(wanted), one_object=split.year == "2016", size=size)


def check_length(masks: Path, count: int) -> None:
    """Raise DavisDataError where a folder has too few annotated frames to be scored."""
    if count < FEWEST_FRAMES:
        raise DavisDataError(
            f"{masks}: {count} annotated frames; the first and the last are not scored, so at least {FEWEST_FRAMES}"
        )


def _check_size(mask: Path, found: tuple[int, int], wanted: tuple[int, int]) -> None:
    if found != wanted:
        raise DavisDataError(f"{mask}: {found[1]} x {found[0]} pixels, but its frame has {wanted[1]} x {wanted[0]}")


def _check_numbering(frames: Sequence[Path]) -> None:
    """Raise DavisDataError where numbered frames have a gap, or come in another order by their names."""
    parts = [_TRAILING_NUMBER.fullmatch(frame.stem) for frame in frames]
    for (frame, part), (following, next_part) in pairwise(zip(frames, parts, strict=True)):
        if part and next_part and part[1] == next_part[1] and int(part[2]) > int(next_part[2]):
            raise DavisDataError(
                f"{frame} comes before {following.name} by its name, which is their order; fill up the numbers with zeros"
            )
    if len(frames) < 3 or not all(frame.stem.isdecimal() for frame in frames):
        return
    numbers = [int(frame.stem) for frame in frames]
    step = min(after - before for before, after in pairwise(numbers))
    for frame, (before, after) in zip(frames, pairwise(numbers), strict=False):
        if after - before != step:
            missing = str(before + step).zfill(len(frame.stem))
            raise DavisDataError(f"{frame.with_stem(missing)}: no such frame, though the sequence goes on after it")


def _some(names: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(names[:_MOST_NAMES_IN_A_MESSAGE])
    hidden = len(names) - _MOST_NAMES_IN_A_MESSAGE
    return shown + (f"{separator}and {hidden} more" if hidden > 0 else "")
