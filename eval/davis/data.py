"""The DAVIS layout: which sequences, frames and masks there are, and whether they are whole and fit each other.

ROOT/ImageSets/2017/val.txt             one sequence per line
ROOT/JPEGImages/480p/SEQUENCE/*.jpg     frames
ROOT/Annotations/480p/SEQUENCE/*.png    masks: of every frame, or of the first one where nothing is to be scored

Loads no torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import check_name
from common.images import is_hidden, read_lines
from eval.davis import TASK
from eval.davis.config import SplitOptions
from eval.davis.sets import SETS, video_names
from eval.findings import Finding, about, first_few, merged, refuse
from eval.propagation.measures import FEWEST_FRAMES, SKIPPED_IDS
from eval.propagation.videos import MasksWanted, VideoFolders, VideoSequence, check_videos, subfolders, with_beginnings
from eval.record import describe_dataset
from eval.result import SAMPLE_MARKER, Dataset

ALL_SEQUENCES = "all"  # the split that needs no list: every folder of frames
DOWNLOAD = f"get {TASK.downloads[0].address} and unpack it"

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

WITHHELD = ("test-dev", "test-challenge")  # splits of DAVIS of which only the first frames' masks are published
_FULLY_ANNOTATED = ("train", "val")
_SHOWN = 5
_END_OF_FRAME = re.compile(r"\.jpg\s")


@dataclass(frozen=True, kw_only=True)
class DavisSplit(SplitOptions):
    """The split in the folder `root`, or only those of its `sequences` where there are any."""

    root: Path
    sequences: tuple[str, ...] = ()

    @classmethod
    def chosen(cls, root: Path, options: SplitOptions, sequences: str = "") -> "DavisSplit":
        """The data that a command's options choose; `sequences` is separated by commas."""
        names = tuple(name.strip() for name in sequences.split(",") if name.strip())
        if options.dataset != "davis" and (options.year, options.resolution) != (cls.year, cls.resolution):
            raise ValueError(f"--year and --resolution are of DAVIS; --dataset {options.dataset} has neither")
        return cls(
            root=root,
            dataset=options.dataset,
            split=check_name(options.split, "--split"),
            year=options.year,
            resolution=options.resolution,
            sequences=names,
        )

    @property
    def split_folder(self) -> Path:
        """The folder that JPEGImages and Annotations are in."""
        if self.dataset == "davis":
            return self.root
        return self.root / ("valid" if self.split == "val" else self.split)

    @property
    def frames_folder(self) -> Path:
        return self.split_folder / "JPEGImages" / (self.resolution if self.dataset == "davis" else ".")

    @property
    def masks_folder(self) -> Path:
        return self.split_folder / "Annotations" / (self.resolution if self.dataset == "davis" else ".")

    @property
    def folders(self) -> VideoFolders:
        return VideoFolders(
            root=self.root,
            frames_folder=self.frames_folder,
            masks_folder=self.masks_folder,
            advice=DOWNLOAD if self.dataset == "davis" else f"get it again from {SETS[self.dataset].address}",
            listing="the list" if self.dataset == "davis" else "meta.json",
            one_object=self.year == "2016",
            gaps=self.dataset != "davis",  # whose frames are all those of a video; the others state no rule
        )

    @property
    def masks_wanted(self) -> MasksWanted:
        """Of which frames a run that scores needs masks: of all, but where they are withheld of those that are given."""
        if self.dataset == "davis":
            return "first" if self.split in WITHHELD else "all"
        return "all" if self.split == "train" else "any"

    @property
    def title(self) -> str:
        return f"DAVIS-{self.year}" if self.dataset == "davis" else SETS[self.dataset].title


def sequence_names(split: DavisSplit) -> list[str]:
    """Names of the chosen sequences, in the order of the list; ValueError if it is missing or lacks a chosen one."""
    if split.dataset != "davis":
        return choose_sequences(split, video_names(split.split_folder))
    if split.split != ALL_SEQUENCES:
        return choose_sequences(split, read_image_set(image_set_path(split)))
    if not split.frames_folder.is_dir():
        raise ValueError(f"{split.frames_folder}: no such folder; expected one folder of frames per sequence there")
    return choose_sequences(split, subfolders(split.frames_folder))


def choose_sequences(split: DavisSplit, names: list[str]) -> list[str]:
    """Those of all the split's sequences that the options chose; ValueError if a chosen one is not among them, or there are none.

    Names become folders, and cells of tables.
    """
    for name in names:
        check_name(name, f"{split.root}: sequence")
    if unknown := [name for name in split.sequences if name not in names]:
        raise ValueError(f"no sequence {', '.join(unknown)} in split {split.split!r}; it has {first_few(names, _SHOWN)}")
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
    if _is_youtube_like(split.root):
        raise ValueError(f"{split.root} has the layout of YouTube-VOS and MOSE; give --dataset {' or '.join(list(SETS)[1:])}")
    raise ValueError(
        f"{paths[0]}: no such file; {split.root} should be a DAVIS folder with ImageSets/{split.year}, "
        f"JPEGImages/{split.resolution} and Annotations/{split.resolution}"
    )


def read_image_set(path: Path) -> list[str]:
    """Sequences of a list: a name per line, or (DAVIS-2016) a frame and a mask per line, whose folder is the sequence.

    ValueError for a name that leads out of the folders of frames and masks.
    """
    names = []
    for line in read_lines(path):
        frame, *mask = _END_OF_FRAME.split(line, maxsplit=1)
        folders = frame.split("/")[:-1]
        names.append(folders[-1] if mask and len(folders) > 1 else line)
    return [check_name(name, f"{path}: sequence") for name in dict.fromkeys(names)]


def fingerprint(split: DavisSplit, sequences: Sequence[VideoSequence]) -> Dataset:
    """What the result says about the data."""
    frames = sum(len(sequence.frames) for sequence in sequences)
    if split.dataset != "davis":
        name = split.split_folder.name
        return describe_dataset(split.root, split.title, name, _items(sequences), SETS[split.dataset].videos.get(name, 0))
    published_sequences, published_frames = PUBLISHED_SIZES.get((split.year, split.split), (0, 0))
    return describe_dataset(
        split.root,
        split.title,
        split.split,
        _items(sequences),
        full_size=published_sequences,
        restricted=frames != published_frames or split.resolution != "480p",
    )


def _items(sequences: Sequence[VideoSequence]) -> list[str]:
    return [f"{item.name} {len(item.frames)} frames {item.size[1]}x{item.size[0]}" for item in sequences]


def find_sequences(split: DavisSplit, all_masks: bool) -> list[VideoSequence]:
    """The chosen sequences, after checking the files that a run will want.

    With `all_masks`, every frame must have a mask, unless those of the split are withheld; otherwise only the first one, or those in
    which objects begin. ValueError names all that is wrong.
    """
    wanted: MasksWanted = "first" if split.dataset == "davis" else "any"
    if all_masks:
        wanted = split.masks_wanted
    sequences, findings = _check_sequences(split, sequence_names(split), wanted, wanted == "all", deep=False, jobs=1)
    refuse(merged(findings), split.root)
    return sequences


def examine(folder: Path, deep: bool = False, jobs: int = 0) -> list[Finding]:
    """Check all listed sequences of DAVIS-2017 at 480p as `find_sequences` does for a split; with `deep`, decode frames too.

    A folder with the layout of YouTube-VOS and MOSE is checked likewise.
    """
    if _is_youtube_like(folder):
        return _examine_youtube_like(folder, deep, jobs)
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
    others = sorted(path for path in needed.parent.glob("*.txt") if path != needed and not is_hidden(path.name))
    for path in (needed, *others):
        place = path.relative_to(folder).as_posix()
        try:
            names = read_image_set(path)
        except ValueError as error:
            findings.append(Finding("damaged", str(error), advice=DOWNLOAD))
            continue
        listed.update(names)
        here = [name for name in names if name in present]
        if path != needed and not here:
            findings.append(Finding("note", f"no sequence of {place} is there; the task needs {needed.stem} only"))
            continue
        absent = [name for name in names if name not in present]
        findings += about("missing" if path == needed else "note", f"sequences of {place} are absent", absent, DOWNLOAD)
        if not names:
            findings.append(Finding("missing", f"{place} names no sequence", advice=DOWNLOAD))
        sequences, found = _check_sequences(
            split, here, "all" if path.stem in _FULLY_ANNOTATED else "first", path == needed, deep, jobs
        )
        findings += [*found, *_compare_with_published(split, path.stem, sequences)]
    findings += about("note", f"sequences are in no list of ImageSets/{split.year}", sorted(present - listed))
    return merged(findings)


def _is_youtube_like(root: Path) -> bool:
    return (root / "valid" / "JPEGImages").is_dir()


def _examine_youtube_like(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    findings = []
    for name in ("train", "valid"):
        split = DavisSplit(root=folder, dataset="youtube-vos-2018", split=name)
        if split.split_folder.is_dir():
            try:
                findings += _check_sequences(split, sequence_names(split), split.masks_wanted, False, deep, jobs)[1]
            except ValueError as error:
                findings.append(Finding("missing", str(error)))
    return merged(findings)


def _compare_with_published(split: DavisSplit, name: str, sequences: Sequence[VideoSequence]) -> list[Finding]:
    findings = []
    size = len(sequences), sum(len(sequence.frames) for sequence in sequences)
    full = PUBLISHED_SIZES.get((split.year, name), size)
    if size != full:
        findings.append(Finding("subset", f"{name}: {size[0]} of {full[0]} sequences, {size[1]:,} of {full[1]:,} frames"))
    if name == split.split and not (split.root / SAMPLE_MARKER).exists():
        lengths = [(sequence.name, len(sequence.frames), VAL_FRAMES.get(sequence.name)) for sequence in sequences]
        differing = [
            f"{name} ({length} of {published})" for name, length, published in lengths if published not in (length, None)
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
    split: DavisSplit, names: Sequence[str], wanted: MasksWanted, strict: bool, deep: bool, jobs: int
) -> tuple[list[VideoSequence], list[Finding]]:
    """Those sequences whose first frame can be read, and findings about all; `strict`: they are to be scored."""
    sequences, findings, ids = check_videos(split.folders, names, wanted, FEWEST_FRAMES, deep, jobs)
    if split.dataset != "davis":
        return [with_beginnings(sequence, ids) for sequence in sequences], findings
    findings += [finding for sequence in sequences for finding in _check_ids(split.root, sequence, ids)]
    if strict and sequences and not any(ids.get(sequence.masks[0]) for sequence in sequences if sequence.masks):
        findings.append(Finding("wrong", "no sequence shows an object in its first mask; there is nothing to score"))
    return sequences, findings


def _check_ids(root: Path, sequence: VideoSequence, ids: Mapping[Path, frozenset[int]]) -> list[Finding]:
    """Notes on what the object ids of a sequence mean for following and scoring them."""
    if not sequence.masks or (first := ids.get(sequence.masks[0])) is None:
        return []
    empty = [] if first else [sequence.masks[0].relative_to(root).as_posix()]
    findings = about("note", "first masks show no object, so that there is nothing to follow", empty)
    if sequence.one_object:
        return findings
    place = sequence.masks[0].parent.name
    gaps = [f"{place} ({', '.join(map(str, sorted(first)))})"] if first != set(range(1, len(first) + 1)) else []
    late = [(path, sorted(ids.get(path, first) - first)) for path in sequence.masks]
    named = [f"{place}/{path.name} ({', '.join(map(str, new[:_SHOWN]))})" for path, new in late if new]
    return [
        *findings,
        *about("note", f"first masks have gaps in their object ids, and {SKIPPED_IDS}", gaps),
        *about("note", "later masks show objects that the first one lacks; they are not followed", named),
    ]
