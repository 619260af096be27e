"""The curves of a training log: losses, accuracies and learning rate over iterations."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from common.curves import Panel, write_panels

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.png"

_ITERATION = "iteration"
_TOTAL_LOSS = "loss"
_LEARNING_RATE = "lr"


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
    write_panels(lines, _ITERATION, _panels(sorted({name for line in lines for name in line})), picture)


def _panels(names: Sequence[str]) -> list[Panel]:
    """Titles of the panels and what each shows.

    A single part is the total loss itself. What is no loss and no learning rate is an accuracy of mmdet's or mmseg's heads.
    """
    parts = [name for name in names if "loss" in name and name != _TOTAL_LOSS]
    others = [name for name in names if "loss" not in name and name not in (_ITERATION, _LEARNING_RATE)]
    panels = [
        Panel("total loss", [_TOTAL_LOSS]),
        Panel("parts of the loss", parts if len(parts) > 1 else []),
        Panel("training accuracy (%)", others),
        Panel("learning rate", [_LEARNING_RATE], smooth=False),
    ]
    return [panel for panel in panels if panel.names]
