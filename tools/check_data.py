"""Examines the data sets under a folder, and reports what is there, missing or damaged."""

import dataclasses
import json
import os
import shlex
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.cli import parse, run_command
from common.files import write_text_atomically
from eval.findings import Finding, about
from eval.registry import Task
from eval.result import SAMPLE_MARKER
from eval.tasks import TASKS, named_tasks, optional_tasks

_ORDER = ("missing", "misplaced", "damaged", "wrong", "subset", "note")
_SEARCH_DEPTH = 3  # levels of folders
_WIDTH = 110
_INDENT = 13
_RED, _GREEN, _YELLOW, _BOLD, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[1m", "\033[0m"


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Examine the data sets under a folder: what is there, what is missing or damaged, and where to get it.

    Exit status: 0 if everything asked for is usable, 1 if there are problems, 2 for a mistake in the command line.
    """

    data: Path = Path("data")  # Folder that holds the data sets.
    tasks: str = ""
    """Examine only the data sets of these tasks, separated by commas; an absent one is then a problem, but for a task that `frozen`
    stands for. By default, all data sets that exist are examined."""
    deep: bool = False  # Decode every file instead of looking at its header and its end.
    jobs: int = 0  # Number of processes; 0 starts one per core.
    names: int = 5  # Number of file names to show for each kind of problem; the JSON file has all of them.
    json: Path | None = None  # Write the report to this file as well, for programs.

    def __post_init__(self) -> None:
        for field in ("jobs", "names"):
            if getattr(self, field) < 0:
                raise ValueError(f"--{field} {getattr(self, field)} is negative; pass 0 or more")
        if self.tasks:
            named_tasks(self.tasks)
        if not self.data.is_dir():
            raise ValueError(
                f"--data {self.data}: no such folder; pass the one that holds {', '.join(task.folder for task in TASKS.values())} "
                f"(to see where to get them, `mkdir -p {self.data}` and run this command again)"
            )


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """Where a data set is, and what was found in it."""

    task: Task
    data: Path
    asked: bool  # whether the user named its task
    examined: bool  # not if the user named other tasks only
    present: bool  # whether there is anything in its folder
    sample: bool  # whether `tools/make_sample_data.py` drew it
    findings: list[Finding]

    @property
    def folder(self) -> Path:
        return self.data / self.task.folder

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_problem]

    @property
    def state(self) -> str:
        if not self.examined:
            return "not examined"
        if self.problems:
            return "problems"
        if not self.present:
            return "absent"
        if self.sample:
            return "sample data"
        return "subset" if any(finding.kind == "subset" for finding in self.findings) else "complete"

    @property
    def is_usable(self) -> bool:
        """Whether the task can run on it."""
        return self.state in ("sample data", "subset", "complete")

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "name": self.task.dataset,
            "data": str(self.data),
            "folder": str(self.folder),
            "downloads": [{"address": one.address, "into": str(self.data / one.into)} for one in self.task.downloads],
            "asked": self.asked,
            "examined": self.examined,
            "present": self.present,
            "sample": self.sample,
            "findings": [
                dataclasses.asdict(one) | {"what": one.text, "problem": one.is_problem, "count": len(one.names) or 1}
                for one in self.findings
            ],
            "state": self.state,
            "usable": self.is_usable if self.examined else None,
        }


def examine_all(config: DoctorConfig) -> list[DatasetReport]:
    """Examine the data sets that the config asks for; of the others, only find out whether they exist."""
    asked, optional = named_tasks(config.tasks) if config.tasks else [], optional_tasks(config.tasks)
    chosen: dict[str, tuple[Task, bool, bool]] = {}
    for task in TASKS.values():
        for number, on_set in enumerate(task.on_each_set()):
            examined = not asked or task.name in asked
            # A set of several tasks is examined once, and must be there only for a task whose own one it is.
            needed = number == 0 and task.name in asked and task.name not in optional
            if on_set.folder not in chosen or (needed, examined) > chosen[on_set.folder][1:]:
                chosen[on_set.folder] = (on_set, needed, examined)
    return [_examine(config, *entry) for entry in chosen.values()]


def _examine(config: DoctorConfig, task: Task, asked: bool, examined: bool) -> DatasetReport:
    folder = config.data / task.folder
    present, findings = folder.is_dir(), []
    if examined:
        elsewhere = find_elsewhere(task, config.data)
        # If the content is elsewhere, findings about the folder would only repeat this for every file.
        present = present and not elsewhere and any(folder.iterdir())
        found = task.load("data", "examine")(folder, config.deep, config.jobs) if present else []
        for finding in (*elsewhere, *found, *find_archives(task, config.data)):
            findings.append(dataclasses.replace(finding, advice=repair_command(finding, folder) or finding.advice))
        findings.sort(key=lambda finding: _ORDER.index(finding.kind))
    return DatasetReport(
        task=task,
        data=config.data,
        asked=asked,
        examined=examined,
        present=present,
        sample=(folder / SAMPLE_MARKER).exists(),
        findings=findings,
    )


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


def is_healthy(reports: Sequence[DatasetReport]) -> bool:
    """Whether all data sets that the user named are usable; if none was named, whether those that exist are, and any exists."""
    if any(report.problems or (report.asked and not report.is_usable) for report in reports):
        return False
    return any(report.is_usable for report in reports)


def render(reports: Sequence[DatasetReport], deep: bool, names_shown: int, colours: bool) -> str:
    """The report as text, with at most `names_shown` names for each finding."""
    lines = []
    for report in reports:
        lines += [*_dataset(report, names_shown, colours), ""]
    usable = ", ".join(report.task.dataset for report in reports if report.is_usable)
    lines.append(f"usable: {usable or 'none'}")
    for label, state in (("to repair", "problems"), ("absent", "absent")):
        if names := [report.task.dataset for report in reports if report.state == state]:
            lines.append(f"{label}: {', '.join(names)}")
    lines.append(
        "every file was decoded"
        if deep
        else "files were checked by header and end, DAVIS masks and some label maps by content; --deep decodes everything"
    )
    return "\n".join(lines)


def _dataset(report: DatasetReport, names_shown: int, colours: bool) -> Iterator[str]:
    title, (state, colour) = f"{report.task.dataset} ({report.task.name}), {report.folder}", _state(report)
    yield f"{_BOLD}{title}{_PLAIN}: {colour}{state}{_PLAIN}" if colours else f"{title}: {state}"
    indent = " " * _INDENT
    for finding in report.findings:
        text = f"{finding.text} ({len(finding.names):,})" if finding.names else finding.text
        if finding.names and names_shown:
            text += f": {', '.join(finding.names[:names_shown])}{', ...' if len(finding.names) > names_shown else ''}"
        label = f"  {finding.kind:<{_INDENT - 2}}"
        yield textwrap.fill(
            text, _WIDTH, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        if finding.advice:
            yield f"{indent}-> {finding.advice}"  # on one line, so that commands can be copied
    if report.state == "absent":
        for download in report.task.downloads:
            yield f"{indent}-> get {download.address} and unpack it in {report.data / download.into}"


def _state(report: DatasetReport) -> tuple[str, str]:
    """The state in words, and its colour."""
    number = len(report.problems)
    away = f"absent; it comes from {report.task.downloads[0].address}"
    return {
        "not examined": ("there, not examined" if report.present else away, ""),
        "absent": ("absent", _RED if report.asked else ""),
        "problems": (f"{number} problem{'s' if number > 1 else ''}", _RED),
        "complete": ("complete, usable", _GREEN),
        "subset": ("a subset, usable", _YELLOW),
        "sample data": ("generated sample data, usable", _YELLOW),
    }[report.state]


def main(argv: Sequence[str]) -> int:
    folders = ", ".join(f"{task.name} ({task.dataset} in {task.folder})" for task in TASKS.values())
    description = f"{(DoctorConfig.__doc__ or '').splitlines()[0]} Tasks: {folders}."
    config = parse(DoctorConfig, argv, "python tools/check_data.py", description)
    reports = examine_all(config)
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(render(reports, config.deep, config.names, colours))  # noqa: T201 - the command's output
    healthy = is_healthy(reports)
    if config.json is not None:
        content = {"data": str(config.data), "deep": config.deep, "healthy": healthy}
        datasets = [report.to_dict() for report in reports]
        write_text_atomically(config.json, json.dumps(content | {"datasets": datasets}, indent=1) + "\n")
    return 0 if healthy else 1


if __name__ == "__main__":
    run_command(main)
