"""The predictions for single images: what the task writes, and significance reads.

Shapes: N images.
"""

import csv
import io
from collections.abc import Mapping
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


def counted(classifier: str, top: int) -> int:
    """How many answers of a classifier count for top-n: of k-NN min(n, k), as in DINO's eval_knn.py, since others got no vote."""
    return min(top, int(classifier.removesuffix("-NN"))) if classifier.endswith("-NN") else top


def write_predictions(folder: Path, ranks: Ranks, images: LabelledImages) -> None:
    """Write the ranks of every test image, in the same order for every backbone, so that two backbones can be compared by image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_IMAGE, "class", *(name + _RANK for name in ranks)])
    writer.writerows(zip(images.names, (images.classes[label] for label in images.labels), *ranks.values(), strict=True))
    write_text_atomically(folder / PREDICTIONS_FILE, text.getvalue())


def read_items(result: Result, folder: Path) -> tuple[tuple[str, ...], Mapping[str, Array], None] | None:
    """Names of the N test images, sorted, and every accuracy in percent as a mean over them.

    None where the result has no predictions. OSError, ValueError, LookupError or csv.Error if the file cannot be read.
    """
    file = result.artefacts.get("predictions")
    if file is None:
        return None
    with (folder / file).open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, restval="", strict=True)
        lines = sorted(reader, key=lambda line: line[_IMAGE])
    columns = [column for column in reader.fieldnames or () if column.endswith(_RANK)]
    ranks = {column.removesuffix(_RANK): np.array([int(line[column]) for line in lines]) for column in columns}
    right = {
        f"{name} top-{top}": PERCENT * (ranks_N < counted(name, top)).astype(np.float64)
        for name, ranks_N in ranks.items()
        for top in TOPS
    }
    return tuple(line[_IMAGE] for line in lines), right, None
