"""The joints of every video, for significance. Loads no torch."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.result import Result, read_arrays

Array = npt.NDArray[np.float64]

ARTEFACT = "video_joints"
"""Archive of names [N], right [N, A, J] and counted [N, J]: places of each joint that are right at each threshold, and that count."""


def pck(right_RAJ: Array, counted_RJ: Array) -> Array:
    """PCK in percent [R, A] of sets of videos: the mean over the joints of the share of their places that are right.

    The published script divides by zero for a joint that is found nowhere; here it is left out.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        shares_RAJ = 100 * right_RAJ / counted_RJ[:, None]
        means_RA: Array = np.nansum(shares_RAJ, axis=2) / (counted_RJ > 0).sum(axis=1)[:, None]
    return means_RA


def read_items(
    result: Result, folder: Path
) -> tuple[tuple[str, ...], Mapping[str, Array], Callable[[Array], Mapping[str, Array]]] | None:
    """Names [N] of the videos, and how PCK follows from weights [R, N] of them; None where the result has no such file."""
    file = result.artefacts.get(ARTEFACT)
    if file is None:
        return None
    arrays = read_arrays(folder / file)
    names = tuple(map(str, arrays["names"].ravel()))
    right_NAJ, counted_NJ = (arrays[name].astype(np.float64) for name in ("right", "counted"))
    metrics = list(result.metrics)
    if right_NAJ.shape != (len(names), len(metrics), *counted_NJ.shape[1:]) or counted_NJ.shape[:1] != (len(names),):
        raise ValueError(f"{file}: counts of shapes {right_NAJ.shape} and {counted_NJ.shape} for {len(names)} videos")
    if right_NAJ.min(initial=0) < 0 or (right_NAJ > counted_NJ[:, None]).any():
        raise ValueError(f"{file}: negative counts, or more right places than places")
    return names, {}, partial(_weighted, metrics, right_NAJ, counted_NJ)


def _weighted(metrics: list[str], right_NAJ: Array, counted_NJ: Array, weights_RN: Array) -> dict[str, Array]:
    right_RAJ = np.einsum("rn,naj->raj", weights_RN, right_NAJ)
    return dict(zip(metrics, pck(right_RAJ, weights_RN @ counted_NJ).T, strict=True))
