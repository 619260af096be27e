"""Finds data sets that are in another folder, in an archive or a level too deep, and gives the commands that move them."""

import os
import shlex
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from eval.findings import Finding, about
from eval.registry import Task

_SEARCH_DEPTH = 3


def find_elsewhere(task: Task, data: Path) -> list[Finding]:
    """Return a finding if the data set is not in its folder, but below it or elsewhere below `data`."""
    folder = data / task.folder
    found = next((place for start in (folder, data) for place in _find_folders(start, task.signs)), None)
    if found is None or found == folder:
        return []
    if found == data:
        above = data.resolve().parents[len(Path(task.folder).parts) - 1]
        advice = f"pass the folder above it: --data {above}"
    else:
        advice = move_command(found, folder)
    return [Finding("misplaced", f"{task.dataset} is in another folder than {folder}", (str(found),), advice)]


def _find_folders(start: Path, signs: Iterable[str]) -> Iterator[Path]:
    """Folders at or a few levels below `start` that hold any of these relative paths, the shallowest first."""
    level = [start]
    for _ in range(_SEARCH_DEPTH + 1):
        yield from (folder for folder in level if any((folder / sign).exists() for sign in signs))
        level = [child for folder in level for child in _subfolders(folder)]


def _subfolders(folder: Path) -> list[Path]:
    """Visible subfolders, sorted by name; none if the folder cannot be read."""
    from common.images import is_hidden  # slow to load, and not needed for --help

    if not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def find_archives(task: Task, data: Path) -> list[Finding]:
    """Findings about downloaded archives, where people usually put them: cut off, not unpacked, or no longer needed."""
    folder = data / task.folder
    places = [folder, *(parent for parent in folder.parents if parent.is_relative_to(data))]
    findings, left_over = [], []
    for download in task.downloads:
        beginning = Path(download.address).stem.lower()
        entries = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
        archives = [
            path for path in entries if path.name.lower().startswith(beginning) and path.suffix.lower() in (".zip", ".tar")
        ]
        if (data / download.brings).exists():
            left_over += archives
            continue
        # A zip's table of contents is its end.
        broken = [path for path in archives if not (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))]
        findings += about("damaged", "archives are cut off", map(str, broken), f"get {download.address} again")
        if whole := [path for path in archives if path not in broken]:
            into = data / download.into
            make = "" if into.is_dir() else f"mkdir -p {_quoted(into)} && "
            unpack = "tar -xf {} -C {}" if whole[0].suffix.lower() == ".tar" else "unzip -q {} -d {}"
            command = make + unpack.format(_quoted(whole[0]), _quoted(into))
            findings.append(Finding("missing", "archives are not unpacked", tuple(map(str, whole)), command))
    return findings + about("note", "archives are unpacked and no longer needed", map(str, left_over))


def repair_command(finding: Finding, root: Path) -> str:
    """The command that moves a folder out of another of the same name; empty for other findings."""
    paths = [root / name for name in finding.names]
    if finding.kind == "misplaced" and len(paths) == 1 and paths[0].is_dir() and paths[0].name == paths[0].parent.name:
        return move_command(paths[0], paths[0].parent)
    return ""


def move_command(source: Path, target: Path) -> str:
    """The command that moves `source` to `target`, or only its contents if `target` exists."""
    if not target.exists():
        make = "" if target.parent.is_dir() else f"mkdir -p {_quoted(target.parent)} && "
        return f"{make}mv {_quoted(source)} {_quoted(target)}"
    # `mv SOURCE/*` fails with a hundred thousand names.
    inner = _quoted(source)
    return f"find {inner} -mindepth 1 -maxdepth 1 -exec mv -n {{}} {_quoted(target)} \\; && rmdir {inner}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
