"""The single items behind a result of DAVIS, for the significance of differences: metrics on any multiset of sequences.

Shapes: R resampled sets, N sequences.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.result import Result

Array = npt.NDArray[np.float64]


def read_items(result: Result, folder: Path) -> tuple[tuple[str, ...], Callable[[Array], Mapping[str, Array]]] | None:
    """Names [N] of the sequences, and the official metrics [R] of weights [R, N]: means over the objects of all sequences.

    None where the result has no breakdown.
    """
    del folder  # everything is in the result itself
    objects: dict[str, list[tuple[float, float]]] = {}
    for name, metrics in sorted(result.breakdown.items()):
        objects.setdefault(name.rpartition("_")[0], []).append((metrics["J-Mean"], metrics["F-Mean"]))
    if not objects:
        return None
    names = tuple(sorted(objects))
    sums_N3 = np.array([(*np.sum(objects[name], axis=0), len(objects[name])) for name in names])

    def metrics_of(weights_RN: Array) -> Mapping[str, Array]:
        region_R, boundary_R, objects_R = (weights_RN @ sums_N3).T
        j_R, f_R = region_R / objects_R, boundary_R / objects_R
        return {"J&F-Mean": (j_R + f_R) / 2, "J-Mean": j_R, "F-Mean": f_R}

    return names, metrics_of
