"""Examines DAVIS-2017 at 480p."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eval.davis.dataset import ALL_SEQUENCES, DavisDataError, DavisSplit, find_sequences, image_set_path, read_image_set
from eval.davis.fingerprint import PUBLISHED_SIZES
from eval.davis.masks import VOID_ID
from eval.result import SAMPLE_MARKER
from tools.data_doctor.davis_sequences import PUBLISHED_FRAMES
from tools.data_doctor.findings import (
    add_archives,
    add_damage,
    add_elsewhere,
    add_entries,
    add_leftovers,
    add_nested,
    add_sizes,
)
from tools.data_doctor.folders import Listing, list_images, subfolders
from tools.data_doctor.image_files import FileFacts, decode_mask, decode_photo, look
from tools.data_doctor.report import DatasetReport, Download, Kind, SplitReport, count_of
from tools.data_doctor.survey import survey

FOLDER = "DAVIS"
"""Below `--data`."""
NAME = "DAVIS-2017"
ADDRESS = "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip"
"""Linked from https://davischallenge.org/davis2017/code.html."""
SPLIT = "val"
"""The split that the task runs on; the others may be absent."""

_SIGNS = ("JPEGImages", "Annotations", "ImageSets")


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """Files of a sequence, ascending."""

    name: str
    frames: list[Path]
    masks: list[Path]
    all_masks: bool
    """Whether every frame should have one; the test splits come with the first masks only."""
    listings: dict[Path, Listing]
    """Folder -> all its entries, for those folders that are there."""


def describe(data: Path) -> DatasetReport:
    """The report before anything was looked at."""
    download = Download(address=ADDRESS, into=data)
    return DatasetReport(task="davis", name=NAME, data=data, folder=data / FOLDER, downloads=(download,))


def examine(data: Path, deep: bool, jobs: int) -> DatasetReport:
    """Examine the dataset below `data`; masks are always decoded, frames if `deep`.

    Args:
        data: Holds `FOLDER`.
        deep: Decode every file.
        jobs: Processes; 0: one per core.
    """
    report = describe(data)
    root = report.folder
    if not any((root / sign).is_dir() for sign in _SIGNS):
        add_elsewhere(report, _SIGNS[:2])
        add_archives(report, [FOLDER], data, str(report.downloads[0]))
        return report
    report.sample = (root / SAMPLE_MARKER).exists()
    split = DavisSplit(root=root, split=SPLIT)
    if not _has_folders(report, split):
        return report
    lists = _read_lists(report, split)
    listed = {name: split_name for split_name, names in lists.items() for name in names}
    found = {path.name for path in (*subfolders(split.frames_folder), *subfolders(split.masks_folder))}
    sequences = {name: _list_sequence(split, name, listed.get(name, SPLIT)) for name in sorted(found)}
    report.add_named("note", f"sequences are in no list of ImageSets/{split.year}", sorted(found - listed.keys()))
    for split_name, names in lists.items():
        _count(report, split, split_name, [sequences[name] for name in names if name in sequences], names)
    listings = {folder: listing for sequence in sequences.values() for folder, listing in sequence.listings.items()}
    add_entries(report, listings)
    for folder in listings:
        add_nested(report, folder)
    doubtful = _check_pairs(report, sequences.values()) | _examine_files(report, list(sequences.values()), deep, jobs)
    asked = [item for item in sequences.values() if item.frames and item.name in listed and item.name not in doubtful]
    _ask_the_task(report, split, asked)
    add_leftovers(report, [FOLDER])
    return report


def _has_folders(report: DatasetReport, split: DavisSplit) -> bool:
    """Whether frames and masks have their folders; findings where not."""
    complete = True
    for folder in (split.frames_folder, split.masks_folder):
        nested = add_nested(report, folder) or add_nested(report, folder.parent)
        if not folder.is_dir() and not nested:
            shown = folder.relative_to(report.folder).as_posix()
            report.add("missing", f"there is no folder {shown}", advice=str(report.downloads[0]))
        complete = complete and folder.is_dir()
    return complete


def _read_lists(report: DatasetReport, split: DavisSplit) -> dict[str, list[str]]:
    """Split -> its sequences, for every list there is; the one that the task needs comes first."""
    try:
        needed = image_set_path(split)
    except DavisDataError as error:
        report.add("missing", str(error), advice=str(report.downloads[0]))
        return {}
    paths = [needed, *(path for path in sorted(needed.parent.glob("*.txt")) if path != needed)]
    lists = {}
    for path in paths:
        try:
            lists[path.stem] = read_image_set(path)
        except UnicodeDecodeError:
            report.add(
                "damaged", f"{path.relative_to(report.folder).as_posix()} is no list of names", advice=str(report.downloads[0])
            )
    if not lists.get(SPLIT):
        report.add("missing", f"the list {needed.relative_to(report.folder).as_posix()} names no sequence")
    return lists


def _list_sequence(split: DavisSplit, name: str, split_name: str) -> _Sequence:
    """What the folders of a sequence hold."""
    folders = (split.frames_folder / name, split.masks_folder / name)
    listings = {
        folder: list_images(folder, suffix) for folder, suffix in zip(folders, (".jpg", ".png"), strict=True) if folder.is_dir()
    }
    frames, masks = (listings[folder].files if folder in listings else frozenset() for folder in folders)
    return _Sequence(
        name=name,
        frames=[folders[0] / file for file in sorted(frames)],
        masks=[folders[1] / file for file in sorted(masks)],
        all_masks=split_name in PUBLISHED_FRAMES,
        listings=listings,
    )


def _check_pairs(report: DatasetReport, sequences: Iterable[_Sequence]) -> set[str]:
    """Findings about frames without masks and masks without frames; returns the sequences with such, or with misnamed ones."""
    without_mask, without_frame, unpaired = [], [], set()
    for sequence in sequences:
        misnamed = {Path(name).stem for listing in sequence.listings.values() for name in listing.misnamed}
        frames, masks = ({path.stem for path in paths} for paths in (sequence.frames, sequence.masks))
        wanted = frames if sequence.all_masks else {path.stem for path in sequence.frames[:1]}
        # What only has a wrong ending is reported as such, not as missing too.
        lone_frames, lone_masks = sorted(wanted - masks - misnamed), sorted(masks - frames - misnamed)
        without_mask += [f"{sequence.name}/{stem}.jpg" for stem in lone_frames]
        without_frame += [f"{sequence.name}/{stem}.png" for stem in lone_masks]
        if lone_frames or lone_masks or misnamed:
            unpaired.add(sequence.name)
    report.add_named("missing", "frames have no mask", without_mask, str(report.downloads[0]))
    report.add_named("missing", "masks have no frame", without_frame, str(report.downloads[0]))
    return unpaired


def _ask_the_task(report: DatasetReport, split: DavisSplit, sequences: Iterable[_Sequence]) -> None:
    """What the evaluation's own check says of sequences, such as of gaps in the numbering."""
    complaints = []
    for sequence in sequences:
        alone = DavisSplit(root=split.root, split=ALL_SEQUENCES, sequences=(sequence.name,))
        try:
            find_sequences(alone, all_masks=sequence.all_masks)
        except DavisDataError as error:
            complaints.append(str(error))
    report.add_named("missing", "the evaluation refuses sequences", complaints, str(report.downloads[0]))


def _count(report: DatasetReport, split: DavisSplit, split_name: str, present: list[_Sequence], names: list[str]) -> None:
    """How much of a split there is; findings about sequences and frames that are not."""
    full_sequences, full_frames = PUBLISHED_SIZES.get((split.year, split_name), (len(names), 0))
    whole = [sequence for sequence in present if sequence.frames]
    frames = sum(len(sequence.frames) for sequence in whole)
    misnamed = {sequence.name for sequence in present for listing in sequence.listings.values() if listing.misnamed}
    absent = sorted(set(names) - {sequence.name for sequence in whole} - misnamed)
    place = f"ImageSets/{split.year}/{split_name}.txt"
    if split_name != SPLIT and not whole:
        report.add("note", f"of {place}, no sequence is there; the task needs {SPLIT} only")
        return
    kind: Kind = "missing" if split_name == SPLIT else "note"
    report.add_named(kind, f"sequences of {place} have no frames", absent, f"{report.downloads[0]}, or take them off the list")
    report.splits.append(
        SplitReport(
            name=split_name,
            unit="sequences",
            found=len(whole),
            full=full_sequences,
            also=count_of(frames, full_frames or frames, "frames"),
            also_full=frames == (full_frames or frames),
        )
    )
    published = PUBLISHED_FRAMES.get(split_name, {})
    if not report.sample:
        differing = [
            f"{item.name} ({len(item.frames)} of {published[item.name]})"
            for item in whole
            if item.name in published and len(item.frames) != published[item.name]
        ]
        report.add_named("note", "sequences have another number of frames than published", differing)


def _examine_files(report: DatasetReport, sequences: list[_Sequence], deep: bool, jobs: int) -> set[str]:
    """Findings about the files themselves; returns the sequences with damaged ones."""
    frame_paths = [path for sequence in sequences for path in sequence.frames]
    mask_paths = [path for sequence in sequences for path in sequence.masks]
    frames = survey(frame_paths, decode_photo if deep else look, jobs, f"{NAME} frames")
    masks = survey(mask_paths, decode_mask, jobs, f"{NAME} masks")
    add_damage(report, [*frames, *masks], str(report.downloads[0]))
    sizes = {(fact.path.parent.name, fact.path.stem): fact.size for fact in masks}
    pairs = ((fact, sizes.get((fact.path.parent.name, fact.path.stem))) for fact in frames)
    add_sizes(report, ((fact, size) for fact, size in pairs if size is not None), "their masks")
    _check_ids(report, masks)
    return {fact.path.parent.name for fact in (*frames, *masks) if fact.damage is not None}


def _check_ids(report: DatasetReport, masks: Iterable[FileFacts]) -> None:
    """Findings about object ids; masks come sequence by sequence, in order."""
    objects: dict[str, set[int]] = {}
    empty, gaps, late = [], [], []
    for fact in masks:
        sequence = fact.path.parent.name
        if fact.values is None:
            objects.setdefault(sequence, set(range(VOID_ID)))  # a damaged first mask: the ids are not known
            continue
        ids = set(fact.values) - {0, VOID_ID}
        if sequence not in objects:
            objects[sequence] = ids
            if not ids:
                empty.append(f"{sequence}/{fact.path.name}")
            elif ids != set(range(1, max(ids) + 1)):
                gaps.append(f"{sequence} ({', '.join(map(str, sorted(ids)))})")
        elif new := sorted(ids - objects[sequence]):
            late.append(f"{sequence}/{fact.path.name} ({', '.join(map(str, new[:5]))})")
    report.add_named("wrong", "first masks show no object, so that there is nothing to follow", empty, str(report.downloads[0]))
    report.add_named("note", "first masks have gaps in their object ids", gaps)
    report.add_named("note", "later masks show objects that the first one lacks; they are not followed", late)
