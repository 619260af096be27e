"""The DAVIS layout: which sequences, frames and masks there are, and what is the matter with them.

ROOT/ImageSets/2017/val.txt             one sequence per line
ROOT/JPEGImages/480p/SEQUENCE/*.jpg     frames
ROOT/Annotations/480p/SEQUENCE/*.png    masks: of every frame, or of the first one where nothing is to be scored

Loads no torch.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from common.images import read_lines
from eval import image_checks
from eval.davis.config import SplitOptions
from eval.davis.masks import VOID_ID, Mask, read_mask, read_mask_size, single_object, without_void
from eval.findings import Finding, about, merged, refuse
from eval.record import describe_dataset
from eval.result import SAMPLE_MARKER, Dataset

ALL_SEQUENCES = "all"  # the split that needs no list: every folder of frames
FEWEST_FRAMES = 3  # a sequence of fewer cannot be scored: neither its first frame counts nor its last
# The link is that of https://davischallenge.org/davis2017/code.html.
DOWNLOAD = "get https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip and unpack it"

# (year, split) -> sequences, frames. Source: the image sets of the DAVIS 2016 and 2017 downloads (davischallenge.org).
PUBLISHED_SIZES = {
    ("2016", "train"): (30, 2079),
    ("2016", "val"): (20, 1376),
    ("2017", "train"): (60, 4209),
    ("2017", "val"): (30, 1999),
    ("2017", "test-dev"): (30, 2086),
    ("2017", "test-challenge"): (30, 2180),
}

# Frames of each sequence of val. Source: `davisinteractive/dataset/davis.json` of albertomontesg/davis-interactive (be7a7e50).
_VAL = """
bike-packing 69, blackswan 50, bmx-trees 80, breakdance 84, camel 90, car-roundabout 75, car-shadow 40, cows 104, dance-twirl 90,
dog 60, dogs-jump 66, drift-chicane 52, drift-straight 50, goat 90, gold-fish 78, horsejump-high 50, india 81, judo 34, kite-surf 50,
lab-coat 47, libby 49, loading 50, mbike-trick 79, motocross-jump 40, paragliding-launch 80, parkour 100, pigs 79, scooter-black 43,
shooting 40, soapbox 99
"""
VAL_FRAMES = {name: int(frames) for name, frames in (entry.split() for entry in _VAL.split(","))}

_NEEDED_SPLIT = "val"
_FULLY_ANNOTATED = ("train", "val")
_SHOWN = 5
_TRAILING_NUMBER = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True, kw_only=True)
class DavisSplit(SplitOptions):
    """Which part of the data set in the folder `root`: of the split, only `sequences` where there are any."""

    root: Path
    sequences: tuple[str, ...] = ()

    @classmethod
    def chosen(cls, root: Path, options: SplitOptions, sequences: str = "") -> "DavisSplit":
        """The data that a command's options choose; `sequences` is separated by commas."""
        names = tuple(name.strip() for name in sequences.split(",") if name.strip())
        return cls(root=root, split=options.split, year=options.year, resolution=options.resolution, sequences=names)

    @property
    def frames_folder(self) -> Path:
        return self.root / "JPEGImages" / self.resolution

    @property
    def masks_folder(self) -> Path:
        return self.root / "Annotations" / self.resolution


@dataclass(frozen=True, kw_only=True)
class VideoSequence:
    """One sequence, all of whose files exist: its frames in order, masks of the first or of every frame.

    `size` is the (height, width) of the first frame; with `one_object`, all objects count as one.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    one_object: bool
    size: tuple[int, int]

    def first_mask(self) -> Mask:
        """Object ids of the first frame, undecided pixels as background.

        The authors' script would take them for an object of id 255, which the official evaluation then refuses.
        """
        mask = read_mask(self.masks[0])
        return single_object(mask) if self.one_object else without_void(mask)


def sequence_names(split: DavisSplit) -> list[str]:
    """Names of the chosen sequences, in the order of the list; ValueError if it is missing or lacks a chosen one."""
    if split.split != ALL_SEQUENCES:
        return choose_sequences(split, read_image_set(image_set_path(split)))
    if not split.frames_folder.is_dir():
        raise ValueError(f"{split.frames_folder}: no such folder; expected one folder of frames per sequence there")
    return choose_sequences(split, subfolders(split.frames_folder))


def choose_sequences(split: DavisSplit, names: list[str]) -> list[str]:
    """Those of all the split's sequences that the options chose; ValueError if a chosen one is not among them, or there are none."""
    if unknown := [name for name in split.sequences if name not in names]:
        shown = ", ".join(names[:_SHOWN]) + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise ValueError(f"no sequence {', '.join(unknown)} in split {split.split!r}; it has {shown}")
    if not names:
        raise ValueError(f"split {split.split!r} of {split.root} has no sequences")
    return [name for name in names if not split.sequences or name in split.sequences]


def image_set_path(split: DavisSplit) -> Path:
    """The split's list: by year, or, in the original download of DAVIS-2016, by resolution. ValueError if there is none."""
    folders = [split.year, split.resolution] if split.year == "2016" else [split.year]
    paths = [split.root / "ImageSets" / folder / f"{split.split}.txt" for folder in folders]
    for path in paths:
        if path.is_file():
            return path
    raise ValueError(
        f"{paths[0]}: no such file; {split.root} should be a DAVIS folder with ImageSets/{split.year}, "
        f"JPEGImages/{split.resolution} and Annotations/{split.resolution}"
    )


def read_image_set(path: Path) -> list[str]:
    """Sequences of a list: a name per line, or (DAVIS-2016) a frame and a mask per line, whose folder is the sequence."""
    names = [line.split()[0] for line in read_lines(path)]
    return list(dict.fromkeys(Path(name).parent.name if name.endswith(".jpg") else name for name in names))


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not image_checks.is_hidden(path.name))


def fingerprint(split: DavisSplit, sequences: Sequence[VideoSequence]) -> Dataset:
    """What the result says about the data."""
    frames = sum(len(sequence.frames) for sequence in sequences)
    published_sequences, published_frames = PUBLISHED_SIZES.get((split.year, split.split), (0, 0))
    items = [f"{item.name} {len(item.frames)} frames {item.size[1]}x{item.size[0]}" for item in sequences]
    return describe_dataset(
        split.root,
        f"DAVIS-{split.year}",
        split.split,
        items,
        full_size=published_sequences,
        restricted=frames != published_frames or split.resolution != "480p",
    )


def find_sequences(split: DavisSplit, all_masks: bool) -> list[VideoSequence]:
    """The chosen sequences, after checking the files that a run will want.

    With `all_masks`, every frame must have a mask that can be scored, otherwise only the first frame one. ValueError with all that
    is missing, damaged by its header or end, or does not fit.
    """
    sequences, findings = _check_sequences(split, sequence_names(split), all_masks, deep=False, jobs=1)
    refuse(merged(findings), split.root)
    return sequences


def examine(folder: Path, deep: bool = False, jobs: int = 0) -> list[Finding]:
    """Check all listed sequences of DAVIS-2017 at 480p as `find_sequences` does for a split, and see how much there is.

    With `deep`, every file is decoded; in `jobs` processes, 0: one per core.
    """
    split = DavisSplit(root=folder)
    findings = _check_folders(split)
    try:
        needed = image_set_path(split)
    except ValueError as error:
        return [*findings, Finding("missing", str(error), advice=DOWNLOAD)]
    if findings:
        return findings
    present = {*subfolders(split.frames_folder), *subfolders(split.masks_folder)}
    listed: set[str] = set()
    others = sorted(path for path in needed.parent.glob("*.txt") if path != needed and not image_checks.is_hidden(path.name))
    for path in (needed, *others):
        place = path.relative_to(folder).as_posix()
        try:
            names = read_image_set(path)
        except ValueError:
            findings.append(Finding("damaged", f"{place} is not a list of names", advice=DOWNLOAD))
            continue
        listed.update(names)
        findings += _examine_split(split, path.stem, place, names, present, deep, jobs)
    findings += about("note", f"sequences are in no list of ImageSets/{split.year}", sorted(present - listed))
    return merged(findings)


def _examine_split(
    split: DavisSplit, name: str, place: str, names: list[str], present: set[str], deep: bool, jobs: int
) -> list[Finding]:
    here = [one for one in names if one in present]
    needed = name == _NEEDED_SPLIT
    if not here and not needed:
        return [Finding("note", f"no sequence of {place} is there; the task needs {_NEEDED_SPLIT} only")]
    sequences, findings = _check_sequences(split, here, name in _FULLY_ANNOTATED, deep, jobs)
    absent = (one for one in names if one not in present)
    findings += about("missing" if needed else "note", f"sequences of {place} are absent", absent, DOWNLOAD)
    if not names:
        findings.append(Finding("missing", f"{place} names no sequence", advice=DOWNLOAD))
    frames = sum(len(sequence.frames) for sequence in sequences)
    full, full_frames = PUBLISHED_SIZES.get((split.year, name), (len(sequences), frames))
    if (len(sequences), frames) != (full, full_frames):
        counts = f"{len(sequences)} of {full} sequences, {frames:,} of {full_frames:,} frames"
        findings.append(Finding("subset", f"{name}: {counts}"))
    if needed and not (split.root / SAMPLE_MARKER).exists():
        differing = [
            f"{item.name} ({len(item.frames)} of {VAL_FRAMES[item.name]})"
            for item in sequences
            if len(item.frames) != VAL_FRAMES.get(item.name, len(item.frames))
        ]
        findings += about("note", "sequences have another number of frames than published", differing)
    return findings


def _check_folders(split: DavisSplit) -> list[Finding]:
    """Whether frames and masks have their folders, at the right depth."""
    findings = []
    for folder in (split.frames_folder, split.masks_folder):
        for place in (folder.parent, folder):
            shown = place.relative_to(split.root).as_posix()
            nested = [f"{shown}/{place.name}"] if (place / place.name).is_dir() else []
            findings += about("misplaced", f"{shown} is in another folder of its name", nested, "move its content up")
        if not folder.is_dir():
            findings.append(Finding("missing", f"there is no folder {shown}", advice=DOWNLOAD))
    return findings


def _check_sequences(
    split: DavisSplit, names: Sequence[str], all_masks: bool, deep: bool, jobs: int
) -> tuple[list[VideoSequence], list[Finding]]:
    """Those sequences whose first frame can be read, and findings about all."""
    root = split.root
    files: list[tuple[str, list[Path], list[Path]]] = []
    findings: list[Finding] = []
    without_frames, short, numbering, without_mask, without_frame = [], [], [], [], []
    for name in names:
        frames, found = _list(split.frames_folder / name, ".jpg", root)
        masks, found_masks = _list(split.masks_folder / name, ".png", root)
        findings += [*found, *found_masks]
        # What only has a wrong ending is reported as such, not as missing too.
        misnamed = {Path(file).stem for one in (*found, *found_masks) if one.kind == "misnamed" for file in one.names}
        if not frames:
            without_frames += [] if misnamed else [name]
            continue
        numbering += _check_numbering(frames, misnamed, root)
        wanted = frames if all_masks else frames[:1]
        stems, by_stem = {frame.stem for frame in frames}, {mask.stem: mask for mask in masks}
        without_mask += [f"{name}/{frame.name}" for frame in wanted if frame.stem not in by_stem.keys() | misnamed]
        without_frame += [f"{name}/{mask.name}" for mask in masks if mask.stem not in stems | misnamed]
        if all_masks and len(frames) < FEWEST_FRAMES:
            short.append(f"{name} ({len(frames)})")
        files.append((name, frames, [by_stem[frame.stem] for frame in wanted if frame.stem in by_stem]))
    reason = "scoring needs a mask of every frame" if all_masks else "propagation starts from the first frame's mask"
    no_frames = f"sequences have no frames (*.jpg) in {split.frames_folder.relative_to(root).as_posix()}"
    gap = "the numbering of frames goes on after a gap, or differs from their order by name"
    sizes, damage = _check_files(root, files, deep, jobs)
    sequences = [
        VideoSequence(
            name=name,
            frames=tuple(frames),
            masks=tuple(masks),
            one_object=split.year == "2016",
            size=(sizes[frames[0]][1], sizes[frames[0]][0]),
        )
        for name, frames, masks in files
        if frames[0] in sizes
    ]
    return sequences, [
        *findings,
        *about("missing", no_frames, without_frames, f"{DOWNLOAD}, or take them off the list"),
        *about("missing", gap, numbering),
        *about("missing", "frames have no mask", without_mask, reason),
        *about("missing", "masks have no frame", without_frame, DOWNLOAD),
        *about("wrong", f"sequences have fewer than {FEWEST_FRAMES} frames, which cannot be scored", short),
        *damage,
    ]


def _list(folder: Path, suffix: Literal[".jpg", ".png"], root: Path) -> tuple[list[Path], list[Finding]]:
    if not folder.is_dir():
        return [], []
    names, findings = image_checks.list_images(folder, suffix, root)
    return [folder / name for name in names], findings


def _check_files(
    root: Path, files: Sequence[tuple[str, list[Path], list[Path]]], deep: bool, jobs: int
) -> tuple[dict[Path, tuple[int, int]], list[Finding]]:
    """(width, height) of each frame that can be read, and findings about the files of sequences (name, frames, masks)."""
    frame_paths = [path for _, frames, _ in files for path in frames]
    looked_at = image_checks.look_at_all(
        frame_paths, image_checks.decode_image if deep else image_checks.look_at_image, jobs, "DAVIS frames"
    )
    # Frames are read as they are stored, whatever their EXIF orientation.
    frame_facts = [fact._replace(turned=False) for fact in looked_at]
    first_masks = {masks[0] for _, _, masks in files if masks}
    others = [path for _, _, masks in files for path in masks if path not in first_masks]
    mask_facts = [
        *image_checks.look_at_all(sorted(first_masks), _decode_mask, jobs, "DAVIS first masks"),
        *image_checks.look_at_all(others, _decode_mask if deep else _look_at_mask, jobs, "DAVIS masks"),
    ]
    sizes = {fact.path: fact.size for fact in frame_facts if fact.size is not None}
    of_first_frame = {frames[0].parent: sizes.get(frames[0]) for _, frames, _ in files}
    of_frame = {(path.parent.name, path.stem): size for path, size in sizes.items()}
    frame_pairs = ((fact, of_first_frame[fact.path.parent]) for fact in frame_facts)
    mask_pairs = ((fact, of_frame.get((fact.path.parent.name, fact.path.stem))) for fact in mask_facts)
    return sizes, [
        *image_checks.damage_findings([*frame_facts, *mask_facts], root, DOWNLOAD),
        *image_checks.size_findings(frame_pairs, root, "the first frame of their sequence"),
        *image_checks.size_findings(mask_pairs, root, "their frames"),
        *_check_ids(root, mask_facts, first_masks),
    ]


def _look_at_mask(path: Path) -> image_checks.ImageFacts:
    return _as_read(image_checks.look_at_labels(path), read_mask_size)


def _decode_mask(path: Path) -> image_checks.ImageFacts:
    return _as_read(image_checks.decode_labels(path), read_mask)


def _as_read(facts: image_checks.ImageFacts, read: Callable[[Path], object]) -> image_checks.ImageFacts:
    """What the reader of masks says of a file that seems to be a label map."""
    try:
        if not facts.damage:
            read(facts.path)
    except ValueError as error:
        return facts._replace(damage="damaged inside", detail=str(error).removeprefix(f"{facts.path}: "))
    return facts


def _check_ids(root: Path, masks: Iterable[image_checks.ImageFacts], first_masks: set[Path]) -> list[Finding]:
    """Notes about object ids, where masks were decoded."""
    ids = {fact.path: set(fact.values) - {0, VOID_ID} for fact in masks if fact.values is not None}
    first = {path.parent: ids[path] for path in first_masks if path in ids}
    empty = [path.relative_to(root).as_posix() for path in sorted(first_masks) if ids.get(path) == set()]
    gaps, late = [], []
    for path, found in sorted(ids.items()):
        if path in first_masks and found and found != set(range(1, max(found) + 1)):
            gaps.append(f"{path.parent.name} ({', '.join(map(str, sorted(found)))})")
        if new := sorted(found - first.get(path.parent, found)):
            late.append(f"{path.parent.name}/{path.name} ({', '.join(map(str, new[:_SHOWN]))})")
    return [
        *about("note", "first masks show no object, so that there is nothing to follow", empty),
        *about("note", "first masks have gaps in their object ids", gaps),
        *about("note", "later masks show objects that the first one lacks; they are not followed", late),
    ]


def _check_numbering(frames: Sequence[Path], misnamed: set[str], root: Path) -> list[str]:
    """Where numbered frames have a gap, or come in another order by their names."""
    parts = [_TRAILING_NUMBER.fullmatch(frame.stem) for frame in frames]
    for (frame, part), (following, next_part) in pairwise(zip(frames, parts, strict=True)):
        if part and next_part and part[1] == next_part[1] and int(part[2]) > int(next_part[2]):
            shown = frame.relative_to(root).as_posix()
            return [f"{shown} comes before {following.name} by its name, which is their order (fill up the numbers with zeros)"]
    if len(frames) < 3 or misnamed or not all(frame.stem.isdecimal() for frame in frames):
        return []
    numbers = [int(frame.stem) for frame in frames]
    step = min(after - before for before, after in pairwise(numbers))
    for frame, (before, after) in zip(frames, pairwise(numbers), strict=False):
        if after - before != step:
            missing = frame.with_stem(str(before + step).zfill(len(frame.stem)))
            return [f"no {missing.relative_to(root).as_posix()}"]
    return []
