"""The curves of a training log: losses, accuracies and learning rate over iterations.

Shapes: N logged iterations.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.files import write_atomically

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.png"

_ITERATION = "iteration"
_TOTAL_LOSS = "loss"
_LEARNING_RATE = "lr"
_LEARNING_RATE_TITLE = "learning rate"
_SMOOTHED_PART = 12
"""Smoothing averages over this part of the curve."""
_FEW_POINTS = 60
"""Up to so many are drawn as points, too."""

Series = npt.NDArray[np.float64]


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a training log, in ascending order of iteration.

    A run that was killed wrote lines after its last checkpoint; the run that continued from there writes these iterations anew.
    Where the log goes back, what it says again replaces what it said before. A line that a kill cut off is left out with a warning.

    Args:
        path: The log file of `eval.openmmlab.progress`.

    Raises:
        ValueError: If it has no line.
        OSError: If it cannot be read.
    """
    lines: list[dict[str, float]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            logger.warning("%s: line %d is cut off and left out of the curves", path, number)
            continue
        while lines and lines[-1][_ITERATION] >= line[_ITERATION]:
            lines.pop()
        lines.append(line)
    if not lines:
        raise ValueError(f"{path} has no line to draw curves from")
    return lines


def smoothed(values_N: Series, window: int) -> Series:
    """The mean over `window` values around each, over fewer at the ends; values that are not finite do not count.

    Args:
        values_N: float64.
        window: Odd.
    """
    finite_N = np.isfinite(values_N)
    weights = np.ones(window)
    reach = window // 2
    sums_N = np.convolve(np.where(finite_N, values_N, 0.0), weights)[reach : reach + len(values_N)]
    counts_N = np.convolve(finite_N.astype(np.float64), weights)[reach : reach + len(values_N)]
    with np.errstate(invalid="ignore"):
        return sums_N / counts_N


def write_curves(log: Path, picture: Path) -> None:
    """Draw a log file's curves: total loss, its parts, accuracies where there are some, learning rate.

    Args:
        log: See `read_log`.
        picture: PNG to write.

    Raises:
        ValueError: If the log is empty.
        OSError: If a file cannot be read or written.
    """
    lines = read_log(log)
    iterations_N = np.array([line[_ITERATION] for line in lines])
    panels = _panels(sorted({name for line in lines for name in line}))
    window = max(3, 2 * (len(lines) // (2 * _SMOOTHED_PART)) + 1)
    figure = Figure(figsize=(9, 0.6 + 2.4 * len(panels)), dpi=110, layout="constrained")
    figure.suptitle(f"faint: as logged; bold: mean over {window} lines of the log", fontsize="small")
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, names) in zip(rows, panels.items(), strict=True):
        for name in names:
            values_N = np.array([line.get(name, np.nan) for line in lines])
            _draw(axes, iterations_N, values_N, name, None if title == _LEARNING_RATE_TITLE else window)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize="small", ncols=2)
    rows[-1].set_xlabel("iteration")
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    write_atomically(picture, figure.savefig)


def _panels(names: Sequence[str]) -> dict[str, list[str]]:
    """Titles of the panels and what each shows.

    A single part is the total loss itself. What is no loss and no learning rate is an accuracy of mmdet's or mmseg's heads.
    """
    parts = [name for name in names if "loss" in name and name != _TOTAL_LOSS]
    others = [name for name in names if "loss" not in name and name not in (_ITERATION, _LEARNING_RATE)]
    panels = {
        "total loss": [_TOTAL_LOSS],
        "parts of the loss": parts if len(parts) > 1 else [],
        "training accuracy (%)": others,
        _LEARNING_RATE_TITLE: [_LEARNING_RATE],
    }
    return {title: shown for title, shown in panels.items() if shown}


def _draw(axes: Axes, iterations_N: npt.NDArray[np.int64], values_N: Series, name: str, window: int | None) -> None:
    """One curve: as logged, and smoothed over it where there is a window."""
    marker = "." if len(values_N) <= _FEW_POINTS else ""
    if window is None:
        axes.plot(iterations_N, values_N, marker=marker, label=name)
        return
    (raw,) = axes.plot(iterations_N, values_N, marker=marker, linewidth=0.8, alpha=0.35)
    axes.plot(iterations_N, smoothed(values_N, window), color=raw.get_color(), linewidth=1.8, label=name)
