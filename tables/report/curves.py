"""Training curves of the fine-tuning tasks, from their logs: losses, accuracies and learning rate over iterations."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tables.report.artefacts import ArtefactError, artefact_path, page_path
from tables.report.groups import Entry, Group
from tables.report.scale import Scale, round_scale
from tables.report.series import COLOURS, Series, make_series

LOG_ARTEFACT = "training_log"

_ITERATION, _LOSS, _RATE = "iteration", "loss", "lr"
_MOST_POINTS = 150
"""Per curve; of a longer log, each point is the mean over equally many lines."""
_WIDTH, _HEIGHT = 330, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 8, 22

Log = list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a plot."""

    label: str
    """In the legend; empty where the plot has only this one."""
    colour: int
    """Class of its colour."""
    series: int | None
    """Index of its backbone where the plot compares some."""
    path: str
    """SVG path data."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Curves over iterations."""

    title: str
    """What they show."""
    curves: list[Curve]
    """At least one."""
    x: Scale
    """Iterations."""
    y: Scale
    """Values."""
    lines_per_point: int
    """How many lines of the log each point averages, at most."""
    width: int = _WIDTH
    """Of the drawing."""
    height: int = _HEIGHT
    """Of the drawing."""


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """The curves of one run."""

    entry: Entry
    """Whose."""
    plots: list[Plot]
    """Empty where there is a problem."""
    problem: str
    """Why there are none; empty otherwise."""
    cut_off: int
    """Lines of the log that are no JSON, as a kill leaves them."""


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """The curves of a group."""

    series: list[Series]
    """One per run."""
    loss: Plot | None
    """The total loss of all runs; None where no log could be read."""
    runs: list[RunCurves]
    """Each run's own."""


def read_log(path: Path) -> tuple[Log, int]:
    """The lines of a training log by ascending iteration, and how many could not be read.

    A run that was killed wrote lines after its last checkpoint, and the run that continued from there wrote them anew: where the log
    goes back, what it says again replaces what it said before.

    Raises:
        ArtefactError: If there is no line, or one without an iteration.
    """
    lines: Log = []
    cut_off = 0
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ArtefactError(f"cannot be read ({error.strerror})") from error
    for text in texts:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            cut_off += 1
            continue
        if not isinstance(line, dict) or not isinstance(line.get(_ITERATION), int):
            raise ArtefactError("has a line without an iteration")
        while lines and lines[-1][_ITERATION] >= line[_ITERATION]:
            lines.pop()
        lines.append({name: float(value) for name, value in line.items() if isinstance(value, (int, float))})
    if not lines:
        raise ArtefactError("holds no line")
    return lines, cut_off


def training_curves(group: Group) -> TrainingCurves | None:
    """The curves of a group; None for a task that keeps no log."""
    entries = [entry for entry in group.entries if LOG_ARTEFACT in entry.result.artefacts]
    if not entries:
        return None
    logs: dict[int, Log] = {}
    found = []
    for index, entry in enumerate(entries):
        relative = entry.result.artefacts[LOG_ARTEFACT]
        try:
            logs[index], cut_off = read_log(artefact_path(entry.measurement, relative))
        except ArtefactError as error:
            problem = f"{page_path(entry.measurement, relative)} {error}"
            found.append(RunCurves(entry=entry, plots=[], problem=problem, cut_off=0))
            continue
        found.append(RunCurves(entry=entry, plots=_run_plots(logs[index]), problem="", cut_off=cut_off))
    named = [(entries[index].name, index % COLOURS, index, log, _LOSS) for index, log in logs.items()]
    return TrainingCurves(series=make_series(group, entries, ""), loss=_plot("Total loss", named), runs=found)


def _run_plots(log: Log) -> list[Plot]:
    """What is no loss and no learning rate is an accuracy of the heads."""
    names = list(dict.fromkeys(name for line in log for name in line))
    parts = [name for name in names if "loss" in name and name != _LOSS]
    others = [name for name in names if "loss" not in name and name not in (_ITERATION, _RATE)]
    # A single part is the total loss itself.
    panels = {
        "Total loss": [_LOSS],
        "Parts of the loss": parts if len(parts) > 1 else [],
        "Training accuracy (%)": others,
        "Learning rate": [_RATE],
    }
    plots = (
        _plot(title, [(name if len(shown) > 1 else "", number % COLOURS, None, log, name) for number, name in enumerate(shown)])
        for title, shown in panels.items()
    )
    return [plot for plot in plots if plot is not None]


def _plot(title: str, curves: Sequence[tuple[str, int, int | None, Log, str]]) -> Plot | None:
    """A plot of (label, colour, series, log, name of the value); None where there is no value at all."""
    points = [_points(log, name) for *_, log, name in curves]
    values = [value for line in points for _, value in line]
    if not values:
        return None
    last = max(iteration for line in points for iteration, _ in line)
    x = round_scale([0.0, last], _LEFT, _WIDTH - _RIGHT)
    y = round_scale(values, _HEIGHT - _BOTTOM, _TOP)
    drawn = [
        Curve(label=label, colour=colour, series=series, path=_path(line, x, y))
        for (label, colour, series, _, _), line in zip(curves, points, strict=True)
        if line
    ]
    return Plot(title=title, curves=drawn, x=x, y=y, lines_per_point=max(_bucket(log) for *_, log, _ in curves))


def _bucket(log: Log) -> int:
    return math.ceil(len(log) / _MOST_POINTS)


def _points(log: Log, name: str) -> list[tuple[float, float]]:
    """(iteration, value), each the mean over `_bucket` lines; values that are not finite do not count."""
    size = _bucket(log)
    points = []
    for start in range(0, len(log), size):
        lines = [line for line in log[start : start + size] if math.isfinite(line.get(name, math.nan))]
        if lines:
            count = len(lines)
            points.append((sum(line[_ITERATION] for line in lines) / count, sum(line[name] for line in lines) / count))
    return points


def _path(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    places = [f"{x.place(iteration):g} {y.place(value):g}" for iteration, value in points]
    # A single point shows as a dot: a round cap on a line of no length.
    return f"M{'L'.join(places)}" + ("h0" if len(places) == 1 else "")
