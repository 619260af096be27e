"""The picture of a run's log: losses, signs of collapse, k-NN and schedules over the steps."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from common.curves import Panel, write_panels
from pretrain.log import LOG_FILE

CURVES_FILE = "curves.png"

KNN = "knn_top1"
"""Name of the k-NN accuracy in the log, in percent."""

_STEP = "step"


def write_curves(folder: Path, picture: Path) -> None:
    """Draw the log of a run.

    Args:
        folder: The run's output, which holds the log.
        picture: PNG to write.

    Raises:
        ValueError: If the log has no line.
        OSError: If a file cannot be read or written.
    """
    path = folder / LOG_FILE
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines:
        raise ValueError(f"{path} has no line to draw curves from")
    write_panels(lines, _STEP, panels({name for line in lines for name in line}), picture)


def panels(names: Collection[str]) -> list[Panel]:
    """What to draw of the numbers that a log has."""

    def there(*candidates: str) -> Sequence[str]:
        return [name for name in candidates if name in names]

    def both(*signs: str) -> Sequence[str]:
        return there(*(f"{part}_{sign}" for part in ("cls", "patch") for sign in signs))

    wanted = [
        Panel("loss", there("loss")),
        Panel("parts of the loss", there("cls_loss", "patch_loss")),
        Panel("entropy of targets\n(part of log K)", both("entropy_part", "batch_entropy_part")),
        Panel("length of the centre", both("centre_norm")),
        Panel("spread of embeddings", both("deviation", "similarity", "queue_similarity")),
        Panel("k-NN top-1 (%)", there(KNN), smooth=False),
        Panel("learning rate", there("lr"), smooth=False),
    ]
    return [panel for panel in wanted if panel.names]
