"""The figures of DAVIS-2017: per object, and over all objects of all sequences.

Source: davisvideochallenge/davis2017-evaluation, `davis2017/utils.py` (`db_statistics`) and `evaluation_method.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.davis.measures import ScoringError, SequenceMeasures

GLOBAL_FIGURES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""In the official order."""

LOWER_IS_BETTER = ("J-Decay", "F-Decay")

_RECALL_THRESHOLD = 0.5
_DECAY_BINS = 4


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions, as the official evaluation has them."""

    overall: dict[str, float]
    """`GLOBAL_FIGURES` -> mean over all objects."""
    per_object: dict[str, dict[str, float]]
    """`SEQUENCE_ID` -> `GLOBAL_FIGURES` of this object over its frames."""


def summarise(sequences: Sequence[SequenceMeasures]) -> Scores:
    """Mean, recall and decay of each object, and their means over the objects.

    Raises:
        ScoringError: If there is no object at all.
    """
    per_object = {
        f"{sequence.name}_{number}": _object_figures(sequence.region[number - 1], sequence.boundary[number - 1])
        for sequence in sequences
        for number in range(1, len(sequence.region) + 1)
    }
    if not per_object:
        raise ScoringError("no sequence has an object in its first annotation; there is nothing to score")
    overall = {
        name: float(np.mean([figures[name] for figures in per_object.values()]))
        for name in GLOBAL_FIGURES
        if name != "J&F-Mean"
    }
    overall = {"J&F-Mean": (overall["J-Mean"] + overall["F-Mean"]) / 2, **overall}
    return Scores(overall=overall, per_object=per_object)


def frame_statistics(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, recall (share above 0.5) and decay (mean of the first quarter minus that of the last) of one object over its frames.

    Neighbouring quarters share their border frame. The official code keeps their positions in 8 bits, which wrap in sequences of more
    than 256 frames; DAVIS has none, and here they do not wrap.

    Args:
        values: [scored frames]; at least one.
    """
    borders = (np.round(np.linspace(1, len(values), _DECAY_BINS + 1) + 1e-10) - 1).astype(int)
    first, last = values[borders[0] : borders[1] + 1], values[borders[-2] : borders[-1] + 1]
    return float(np.mean(values)), float(np.mean(values > _RECALL_THRESHOLD)), float(np.mean(first) - np.mean(last))


def _object_figures(region: npt.NDArray[np.float64], boundary: npt.NDArray[np.float64]) -> dict[str, float]:
    j_mean, j_recall, j_decay = frame_statistics(region)
    f_mean, f_recall, f_decay = frame_statistics(boundary)
    figures = ((j_mean + f_mean) / 2, j_mean, j_recall, j_decay, f_mean, f_recall, f_decay)
    return dict(zip(GLOBAL_FIGURES, figures, strict=True))
