"""The metrics of every tested image, for significance. Loads no torch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.result import Result, read_arrays

Array = npt.NDArray[np.float64]

ARTEFACT = "image_metrics"


def read_items(result: Result, folder: Path) -> tuple[tuple[str, ...], Mapping[str, Array], None] | None:
    """Names [N] of the tested images and their metrics [N], whose means are the result's; None where the result has no such file."""
    file = result.artefacts.get(ARTEFACT)
    if file is None:
        return None
    arrays = read_arrays(folder / file)
    names = tuple(map(str, arrays["names"].ravel()))
    values = {name: arrays[name].astype(np.float64) for name in result.metrics}
    if any(of_images.shape != (len(names),) for of_images in values.values()):
        raise ValueError(f"{file}: not one value per image")
    return names, values, None
