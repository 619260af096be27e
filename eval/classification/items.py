"""The predictions for single images: what the task writes, and significance reads.

Shapes: R resampled sets, N images, M metrics.
"""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.files import write_text_atomically
from eval.classification.data import LabelledImages
from eval.result import Result

Array = npt.NDArray[np.float64]
Ranks = Mapping[str, npt.NDArray[np.int64]]
"""For every classifier [N]: how many classes come before the right one."""

PREDICTIONS_FILE = "predictions.csv"
TOPS = (1, 5)
PERCENT = 100

_IMAGE, _RANK = "image", " rank"


def write_predictions(folder: Path, ranks: Ranks, images: LabelledImages) -> None:
    """Write the ranks of every test image, in the same order for every backbone, so that two backbones can be compared by image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_IMAGE, "class", *(name + _RANK for name in ranks)])
    writer.writerows(zip(images.names, (images.classes[label] for label in images.labels), *ranks.values(), strict=True))
    write_text_atomically(folder / PREDICTIONS_FILE, text.getvalue())


def read_items(result: Result, folder: Path) -> tuple[tuple[str, ...], Callable[[Array], Mapping[str, Array]]] | None:
    """Names of the N test images, sorted, and a function from weights [R, N] to {metric: values [R] in percent}.

    None where the result has no predictions. OSError, ValueError, LookupError or csv.Error if the file cannot be read.
    """
    file = result.artefacts.get("predictions")
    if file is None:
        return None
    with (folder / file).open(encoding="utf-8", newline="") as stream:
        lines = sorted(csv.DictReader(stream, restval="", strict=True), key=lambda line: line[_IMAGE])
    names = tuple(line[_IMAGE] for line in lines)
    columns = [column for column in lines[0] if column.endswith(_RANK)]
    ranks = {column.removesuffix(_RANK): np.array([int(line[column]) for line in lines]) for column in columns}
    metrics = [f"{name} top-{top}" for name in ranks for top in TOPS]
    right_NM = np.stack([PERCENT * (ranks[name] < top) for name in ranks for top in TOPS], axis=1).astype(np.float64)

    def metrics_of(weights_RN: Array) -> Mapping[str, Array]:
        return dict(zip(metrics, (weights_RN @ right_NM).T / weights_RN.sum(axis=1), strict=True))

    return names, metrics_of
