"""Every result under a folder, checked as far as the tables rely on it, by backbone."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from eval.result import RESULT_FILE, Result, ResultError, read_result
from tables.architecture import architecture_name
from tables.checks import check_result
from tables.layout import WITHOUT_TABLE, Task

logger = logging.getLogger(__name__)


class CollectionError(ValueError):
    """Result files that cannot be used; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        """Keep the lines beside a summary."""
        super().__init__(f"{len(problems)} problem(s) in the result files; no table was written")
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One result and where it lies."""

    path: str
    """Relative to the folder of runs, with forward slashes."""
    result: Result
    """Its content."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One backbone and what was measured on it."""

    name: str
    """The run's name."""
    architecture: str
    """Such as `ViT-S/16`."""
    measurements: dict[Task, Measurement]
    """At most one result per task."""

    @property
    def any_result(self) -> Result:
        """Some result, for what all of them say alike: name, digest, spec and source of the backbone."""
        return next(iter(self.measurements.values())).result


def collect(runs: Path) -> list[Evaluated]:
    """Read every `result.json` below a folder.

    Returns:
        The evaluated backbones by name.

    Raises:
        ValueError: If there is no such folder.
        CollectionError: If a file is damaged, incomplete or of another version; if two hold the same task of the same name; or if
            one name stands for two backbones.
    """
    if not runs.is_dir():
        raise ValueError(f"--runs {runs}: no such folder; pass the one that holds NAME/TASK/{RESULT_FILE}")
    problems: list[str] = []
    measurements: list[Measurement] = []
    for path in sorted(runs.rglob(RESULT_FILE)):
        try:
            result = read_result(path)
            check_result(result, path)
        except ResultError as error:
            problems.append(" ".join(str(error).split()))
            continue
        if result.task in WITHOUT_TABLE:
            logger.info("%s: no table shows %s; its figures are in this file", path, result.task)
            continue
        measurements.append(Measurement(path=path.relative_to(runs).as_posix(), result=result))
    by_name: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_name.setdefault(measurement.result.backbone.name, []).append(measurement)
    evaluated = [_gather(name, by_name[name], problems) for name in sorted(by_name)]
    if problems:
        raise CollectionError(problems)
    return evaluated


def _gather(name: str, measurements: list[Measurement], problems: list[str]) -> Evaluated:
    """Bring one name's results together; adds what does not fit to `problems`."""
    first = measurements[0]
    by_task: dict[Task, Measurement] = {}
    for measurement in measurements:
        task = _task(measurement.result)
        if task in by_task:
            problems.append(
                f"{measurement.path}: a second {task} result of {name!r}, beside {by_task[task].path}; "
                "remove one or evaluate under another --name"
            )
        elif measurement.result.backbone.sha256 != first.result.backbone.sha256:
            problems.append(
                f"{measurement.path}: {name!r} is another backbone file here than in {first.path}; "
                "remove one or evaluate under another --name"
            )
        by_task.setdefault(task, measurement)
    return Evaluated(name=name, architecture=architecture_name(first.result.backbone.spec), measurements=by_task)


def _task(result: Result) -> Task:
    """The result's task; `check_result` has seen that it is one."""
    return next(task for task in get_args(Task) if task == result.task)
