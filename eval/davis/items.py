"""The sequences behind a result of DAVIS, for the significance of differences."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.result import Result

Array = npt.NDArray[np.float64]


def read_items(result: Result, folder: Path) -> tuple[tuple[str, ...], Mapping[str, Array], None] | None:
    """Names [N] of the sequences, and the official metrics as means over them; None where the result has no breakdown.

    The metrics are means over objects: a sequence weighs as much as it has objects.
    """
    del folder  # everything is in the result itself
    objects: dict[str, list[tuple[float, float]]] = {}
    for name, metrics in sorted(result.breakdown.items()):
        objects.setdefault(name.rpartition("_")[0], []).append((metrics["J-Mean"], metrics["F-Mean"]))
    if not objects:
        return None
    names = tuple(sorted(objects))
    per_sequence = len(names) / len(result.breakdown)
    j_N, f_N = per_sequence * np.array([np.sum(objects[name], axis=0) for name in names]).T
    return names, {"J&F-Mean": (j_N + f_N) / 2, "J-Mean": j_N, "F-Mean": f_N}, None
