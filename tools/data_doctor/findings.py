"""What all datasets' examinations say alike: of damaged files, sizes, folders' entries and datasets that lie elsewhere."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tools.data_doctor.folders import (
    Listing,
    archive_is_whole,
    find_archives,
    find_folders,
    is_clutter,
    move_command,
    rename_command,
)
from tools.data_doctor.image_files import Damage, FileFacts
from tools.data_doctor.report import DatasetReport

Size = tuple[int, int]
"""(width, height)."""

CLUTTER = "entries come from an operating system; nobody reads them"


def add_damage(report: DatasetReport, facts: Iterable[FileFacts], advice: str) -> None:
    """A finding per kind of damage.

    Args:
        report: Takes them.
        facts: Of any files of the dataset.
        advice: How to get whole ones.
    """
    by_damage: dict[Damage, list[str]] = defaultdict(list)
    for fact in facts:
        if fact.damage is not None:
            detail = f" ({fact.detail})" if fact.detail else ""
            by_damage[fact.damage].append(f"{fact.path.relative_to(report.folder).as_posix()}{detail}")
    for damage, names in by_damage.items():
        pull = "`git lfs pull` in the repository that they come from brings the files"
        report.add_named("damaged", f"files are {damage}", names, pull if damage is Damage.LFS_POINTER else advice)


def add_sizes(report: DatasetReport, pairs: Iterable[tuple[FileFacts, Size]], reference: str) -> None:
    """Findings about photographs whose size is not what belongs to them.

    Args:
        report: Takes them.
        pairs: A photograph and the size that it should have.
        reference: What says so, such as `their label maps`.
    """
    wrong, turned = [], []
    for fact, expected in pairs:
        if fact.size is None:
            continue
        name = fact.path.relative_to(report.folder).as_posix()
        seen = fact.size[::-1] if fact.turned else fact.size
        if expected not in (fact.size, seen):
            wrong.append(f"{name} ({_times(fact.size)} instead of {_times(expected)})")
        elif expected != seen:
            turned.append(name)
    report.add_named("wrong", f"images differ in size from {reference}", wrong, "they were resized, or are other images")
    report.add_named("note", f"images are turned by their EXIF orientation when read, unlike {reference}", turned)


def add_entries(report: DatasetReport, listings: Mapping[Path, Listing]) -> None:
    """Findings about whatever in folders of images is not an image named as it should be.

    Args:
        report: Takes them.
        listings: Folder -> its entries.
    """

    def shown(part: Callable[[Listing], Iterable[str]]) -> list[str]:
        places = ((folder.relative_to(report.folder), listing) for folder, listing in listings.items())
        return [(place / name).as_posix() for place, listing in places for name in part(listing)]

    renamings = [(folder / old, folder / new) for folder, listing in listings.items() for old, new in listing.misnamed.items()]
    advice = rename_command(renamings) if renamings else ""
    report.add_named(
        "misnamed", "files have an ending by which they are not found", shown(lambda listing: listing.misnamed), advice
    )
    unfinished = shown(lambda listing: listing.unfinished)
    report.add_named("note", "files are left from an interrupted download", unfinished, "remove them")
    report.add_named("note", CLUTTER, shown(lambda listing: listing.clutter))
    within = [
        (folder / name).relative_to(report.folder).as_posix()
        for folder, listing in listings.items()
        for name in listing.folders
        if name != folder.name  # that one is `add_nested`'s
    ]
    report.add_named("note", "folders lie within folders of images; nobody looks into them", within)
    report.add_named("note", "entries do not belong where they are", shown(lambda listing: listing.others))


def add_nested(report: DatasetReport, folder: Path) -> bool:
    """A finding if a folder lies one level too deep, as `train2017/train2017`; whether it does."""
    twin = folder / folder.name
    if not twin.is_dir():
        return False
    shown = folder.relative_to(report.folder).as_posix()
    report.add("misplaced", f"{shown} lies within another folder of its name", [str(twin)], move_command(twin, folder))
    return True


def add_archives(report: DatasetReport, beginnings: Sequence[str], into: Path, advice: str) -> bool:
    """Findings about archives of missing content, in the places where people put them; whether there are any."""
    archives = find_archives(_places(report), beginnings)
    whole = [path for path in archives if archive_is_whole(path)]
    report.add_named("damaged", "archives are cut off", (str(path) for path in archives if path not in whole), advice)
    if whole:
        make = "" if into.is_dir() else f"mkdir -p {into} && "
        command = f"unzip -q {whole[0]} -d {into}" if whole[0].suffix.lower() == ".zip" else f"tar -xf {whole[0]} -C {into}"
        report.add("missing", "archives lie there, not unpacked", map(str, whole), make + command)
    return bool(archives)


def add_leftovers(report: DatasetReport, beginnings: Sequence[str]) -> None:
    """Notes about archives that are unpacked already, and about what unpacking leaves on some systems."""
    mentioned = {name for finding in report.findings for name in finding.names}
    archives = [str(path) for path in find_archives(_places(report), beginnings) if str(path) not in mentioned]
    report.add_named("note", "archives are unpacked and no longer needed", archives)
    with os.scandir(report.folder) as entries:
        clutter = sorted(entry.name for entry in entries if is_clutter(entry.name))
    report.add_named("note", CLUTTER, clutter)


def add_elsewhere(report: DatasetReport, children: Sequence[str]) -> None:
    """Say of a dataset that is not in its folder where it lies instead, if it does.

    Args:
        report: Of the dataset.
        children: Relative paths by which it is known.
    """
    report.present = False
    found = next((place for start in (report.folder, report.data) for place in find_folders(start, children)), None)
    if found is None:
        return
    if found == report.data:
        depth = len(report.folder.relative_to(report.data).parts)
        advice = f"pass the folder above it: --data {report.data.resolve().parents[depth - 1]}"
    else:
        advice = move_command(found, report.folder)
    report.add("misplaced", f"{report.name} lies in another folder than {report.folder}", [str(found)], advice)


def _places(report: DatasetReport) -> list[Path]:
    """Where people put a dataset's archives: in its folder, or above it up to `--data`."""
    return [report.folder, *(parent for parent in report.folder.parents if parent.is_relative_to(report.data))]


def _times(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
