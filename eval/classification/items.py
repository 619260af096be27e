"""The single images behind a classification result, for significance.

Shapes: R resampled sets, N images, M metrics.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.result import Result

Array = npt.NDArray[np.float64]

_RANK = " rank"
_TOPS = (1, 5)
_PERCENT = 100


def read_items(result: Result, folder: Path) -> tuple[tuple[str, ...], Callable[[Array], Mapping[str, Array]]] | None:
    """The ranks of the right classes that the artefact `predictions` holds; None where the result has none.

    Returns:
        Names of the N test images, sorted, and a function from weights [R, N] to {metric: values [R] in percent}.

    Raises:
        OSError, ValueError, IndexError, csv.Error: If the file cannot be read.
    """
    file = result.artefacts.get("predictions")
    if file is None:
        return None
    with (folder / file).open(encoding="utf-8", newline="") as stream:
        header, *lines = list(csv.reader(stream, strict=True))
    lines.sort(key=lambda line: line[header.index("image")])
    names = tuple(line[header.index("image")] for line in lines)
    columns = {name: place for place, name in enumerate(header) if name.endswith(_RANK)}
    ranks = {name.removesuffix(_RANK): np.array([int(line[place]) for line in lines]) for name, place in columns.items()}
    metrics = [f"{name} top-{top}" for name in ranks for top in _TOPS]
    right_NM = np.stack([_PERCENT * (ranks[name] < top) for name in ranks for top in _TOPS], axis=1).astype(np.float64)

    def metrics_of(weights_RN: Array) -> Mapping[str, Array]:
        return dict(zip(metrics, (weights_RN @ right_NM).T / weights_RN.sum(axis=1), strict=True))

    return names, metrics_of
