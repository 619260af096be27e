"""Looks at folders without opening files: what is named as it should be, what is not, and where a stray dataset may lie."""

import os
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_SPELLINGS = {".jpg": (".jpg", ".jpeg", ".jpe"), ".png": (".png",)}
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
_UNFINISHED = (".part", ".crdownload", ".aria2", ".tmp", ".download", ".partial")
_CLUTTER = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")
_SEARCH_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The entries of a folder of images, by what they are."""

    files: frozenset[str]
    """Named as they should be."""
    misnamed: dict[str, str]
    """Such as `a.JPG` -> `a.jpg`, where no `a.jpg` is there."""
    unfinished: tuple[str, ...]
    """What an interrupted download leaves."""
    clutter: tuple[str, ...]
    """What operating systems leave; nobody reads it."""
    folders: tuple[str, ...]
    """Folders within."""
    others: tuple[str, ...]
    """Anything else."""


def list_images(folder: Path, suffix: str) -> Listing:
    """Sort the entries of a folder whose files should all end in `suffix`.

    Raises:
        OSError: If it cannot be read.
    """
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    named = frozenset(name for name, is_folder in kinds.items() if not is_folder and name.endswith(suffix) and name[0] != ".")
    misnamed: dict[str, str] = {}
    unfinished, clutter, folders, others = [], [], [], []
    for name in sorted(kinds.keys() - named):
        right = f"{Path(name).stem}{suffix}"
        if is_clutter(name):
            clutter.append(name)
        elif kinds[name]:
            folders.append(name)
        elif name.lower().endswith(_UNFINISHED):
            unfinished.append(name)
        elif Path(name).suffix.lower() in _SPELLINGS[suffix] and right not in named:
            misnamed[name] = right
        else:
            others.append(name)
    return Listing(
        files=named,
        misnamed=misnamed,
        unfinished=tuple(unfinished),
        clutter=tuple(clutter),
        folders=tuple(folders),
        others=tuple(others),
    )


def is_clutter(name: str) -> bool:
    """Whether an operating system left it: hidden files such as macOS's `._a.jpg`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith(".") or name in _CLUTTER


def find_folders(start: Path, children: Iterable[str]) -> Iterator[Path]:
    """Folders at or a little below `start` that hold any of these relative paths; the shallowest first."""
    wanted = tuple(children)
    level = [start]
    for depth in range(_SEARCH_DEPTH + 1):
        yield from (folder for folder in level if any((folder / child).exists() for child in wanted))
        if depth < _SEARCH_DEPTH:
            level = [folder for parent in level for folder in subfolders(parent)]


def subfolders(folder: Path) -> list[Path]:
    """Visible folders within, by name; none where it cannot be read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir() and not is_clutter(entry.name))


def find_archives(folders: Iterable[Path], beginnings: Iterable[str]) -> list[Path]:
    """Archives in these folders whose names begin so; case does not matter."""
    starts = tuple(name.lower() for name in beginnings)
    found = (path for folder in dict.fromkeys(folders) if folder.is_dir() for path in sorted(folder.iterdir()))
    return [path for path in found if path.name.lower().startswith(starts) and path.name.lower().endswith(_ARCHIVES)]


def archive_is_whole(path: Path) -> bool:
    """Whether a zip has its table of contents, which is its end; other archives are not judged."""
    return path.suffix.lower() != ".zip" or zipfile.is_zipfile(path)


def move_command(source: Path, target: Path) -> str:
    """What to type to have `source` at `target`; where that folder exists, the contents are moved."""
    if not target.exists():
        make = "" if target.parent.is_dir() else f"mkdir -p {_quoted(target.parent)} && "
        return f"{make}mv {_quoted(source)} {_quoted(target)}"
    # Not `mv SOURCE/*`: the shell takes no list of a hundred thousand names.
    inner = _quoted(source)
    return f"find {inner} -mindepth 1 -maxdepth 1 -exec mv -n {{}} {_quoted(target)} \\; && rmdir {inner}"


def rename_command(renamings: Sequence[tuple[Path, Path]]) -> str:
    """What to type to give files another ending; an example of it where their endings differ too much for one command."""
    endings = {(old.suffix, new.suffix) for old, new in renamings}
    if len(renamings) == 1 or len(endings) > 1:
        old, new = renamings[0]
        return f"{'as in: ' if len(renamings) > 1 else ''}mv -n {_quoted(old)} {_quoted(new)}"
    ((wrong, right),) = endings
    folder = Path(os.path.commonpath([old.parent for old, _ in renamings]))
    return f"find {_quoted(folder)} -name '*{wrong}' -exec sh -c 'mv -n \"$1\" \"${{1%.*}}{right}\"' _ {{}} \\;"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
