"""Reads the numbers that a fine-tuning run logged at N steps, and plots such numbers in panels over one axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.files import parse_json, write_atomically

_SMOOTHED_PART = 12  # smoothing averages over this part of the curve
_FEW_POINTS = 60  # up to so many are drawn as points, too
Series = npt.NDArray[np.float64]


class Panel(NamedTuple):
    """Curves that share an axis: which of the logged numbers, and whether their running means are drawn, too."""

    title: str
    names: Sequence[str]
    smooth: bool = True


def read_log(path: Path, step: str = "iteration") -> tuple[list[dict[str, float]], int]:
    """The lines of a log, ascending by `step`, and how many could not be read, since a kill cut them off.

    After a kill, the run that continues from the last checkpoint writes the lines since then anew: where the log goes back, they
    replace the earlier ones. ValueError, without the path, if it has no line, or one without a step.
    """
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    lines: list[dict[str, float]] = []
    cut_off = 0
    for text in texts:
        try:
            line = parse_json(text)
        except ValueError:
            cut_off += 1
            continue
        if not isinstance(line, dict) or not isinstance(line.get(step), int):
            raise ValueError(f"has a line without {'an' if step == 'iteration' else 'a'} {step}")
        while lines and lines[-1][step] >= line[step]:
            lines.pop()
        lines.append({name: float(value) for name, value in line.items() if isinstance(value, (int, float))})
    if not lines:
        raise ValueError("holds no line")
    return lines, cut_off


def smoothed(values_N: Series, window: int) -> Series:
    """The mean over `window` (odd) values around each, over fewer at the ends; values that are not finite do not count."""
    finite_N = np.isfinite(values_N)
    inner = slice(window // 2, window // 2 + len(values_N))
    sums_N, counts_N = (np.convolve(each_N, np.ones(window))[inner] for each_N in (np.where(finite_N, values_N, 0.0), finite_N))
    with np.errstate(invalid="ignore"):
        return sums_N / counts_N


def write_panels(lines: Sequence[Mapping[str, float]], step: str, panels: Sequence[Panel], picture: Path) -> None:
    """Draw panels, at least one, from top to bottom into a PNG file, atomically.

    `lines` are the log's, ascending by `step`, the name of the number on the common axis; others may be absent from some of them.
    """
    steps_N = np.array([line[step] for line in lines])
    window = max(3, 2 * (len(lines) // (2 * _SMOOTHED_PART)) + 1)
    figure = Figure(figsize=(9, 0.6 + 2.4 * len(panels)), dpi=110, layout="constrained")
    figure.suptitle(f"faint: as logged; bold: mean over {window} lines of the log", fontsize="small")
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(rows, panels, strict=True):
        for name in panel.names:
            values_N = np.array([line.get(name, np.nan) for line in lines])
            there_N = ~np.isnan(values_N)
            marker = "." if there_N.sum() <= _FEW_POINTS else ""
            if panel.smooth:
                (raw,) = axes.plot(steps_N, values_N, marker=marker, linewidth=0.8, alpha=0.35)
                axes.plot(steps_N, smoothed(values_N, window), color=raw.get_color(), linewidth=1.8, label=name)
            else:
                # What is logged at few steps only is a line all the same.
                axes.plot(steps_N[there_N], values_N[there_N], marker=marker, label=name)
        axes.set_ylabel(panel.title)
        axes.grid(alpha=0.3)
        if len(panel.names) > 1:
            axes.legend(fontsize="small", ncols=2)
    rows[-1].set_xlabel(step)
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    write_atomically(picture, figure.savefig)
