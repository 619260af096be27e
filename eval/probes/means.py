"""Metrics of single test items whose means are a result's metrics, for significance. Loads no torch.

Shapes: N items, M metrics.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.files import write_atomically
from eval.result import Result, read_arrays

Array = npt.NDArray[np.float64]
Items = tuple[tuple[str, ...], Mapping[str, Array], None] | None

ARTEFACT, ITEMS_FILE = "item_metrics", "item_metrics.npz"


def write_items(folder: Path, names: Sequence[str], values: Mapping[str, Array]) -> None:
    """Write the metrics of all items in the order of their names; NaN where an item does not count."""
    order = np.argsort(np.array(names))
    arrays: dict[str, Any] = {
        "names": np.array(names)[order],
        "metrics": np.array(list(values)),
        "values": np.stack([values[metric][order] for metric in values]),
    }
    write_atomically(folder / ITEMS_FILE, partial(np.savez_compressed, **arrays))


def read_items(result: Result, folder: Path) -> Items:
    """Names [N] of the items and, for every metric, values [N], NaN where an item does not count, whose mean it is.

    None where the result has no such file.
    """
    file = result.artefacts.get(ARTEFACT)
    if file is None:
        return None
    arrays = read_arrays(folder / file)
    names, metrics = (tuple(map(str, arrays[key].ravel())) for key in ("names", "metrics"))
    values_MN = arrays["values"].astype(np.float64)
    if values_MN.shape != (len(metrics), len(names)):
        raise ValueError(f"{file}: values of shape {values_MN.shape} for {len(metrics)} metrics and {len(names)} items")
    if np.isnan(values_MN).all(axis=1).any():
        raise ValueError(f"{file}: a metric without any item")
    return names, dict(zip(metrics, values_MN, strict=True)), None
