"""The official DAVIS-2017 evaluation package beside our own figures, where it is installed.

Source: davisvideochallenge/davis2017-evaluation ac7c43f, `DAVISEvaluation` in `davis2017/evaluation.py`.
"""

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.davis.summary import Scores

TOLERANCE = 1e-9
"""Largest difference of a figure: both sum the same numbers in another order."""

_SPLIT, _YEAR, _RESOLUTION = "val", "2017", "480p"
_STATISTICS = {"M": "Mean", "R": "Recall", "D": "Decay"}


class OfficialDifferenceError(ValueError):
    """The official package has other figures than we have."""


def official_figures(names: Sequence[str], annotations: Path, predictions: Path) -> dict[str, dict[str, float]]:
    """Figures of each object by the official package.

    Args:
        names: Sequences.
        annotations: Folder with one folder of masks per sequence.
        predictions: The same for the predictions.

    Returns:
        `SEQUENCE_ID` -> `J-Mean`, `J-Recall`, `J-Decay`, `F-Mean`, `F-Recall`, `F-Decay`, as fractions.

    Raises:
        ValueError: If the package is not installed or refuses the masks.
    """
    try:
        package = importlib.import_module("davis2017.evaluation")
    except ImportError as error:
        raise ValueError(
            f"--official needs the official evaluation package ({error}); "
            "`uv pip install --no-deps -r requirements-official.txt` installs it from its repository"
        ) from error
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _lay_out(root, names, annotations)
        evaluation = package.DAVISEvaluation(str(root), "semi-supervised", _SPLIT, sequences=list(names), codalab=True)
        try:
            measures = evaluation.evaluate(str(predictions))
        except SystemExit as error:  # after a line on stdout
            raise ValueError("the official evaluation gave up on these masks") from error
    return _per_object(measures)


def compare_with_official(scores: Scores, names: Sequence[str], annotations: Path, predictions: Path) -> None:
    """Score again with the official package.

    Raises:
        OfficialDifferenceError: If any figure of any object differs by more than `TOLERANCE`.
        ValueError: As `official_figures`.
    """
    official = official_figures(names, annotations, predictions)
    if set(official) != set(scores.per_object):
        raise OfficialDifferenceError(
            f"the official evaluation has objects {sorted(official)}, not {sorted(scores.per_object)}"
        )
    differing = [
        f"{name} {figure} {scores.per_object[name][figure]!r} here, {value!r} there"
        for name, figures in official.items()
        for figure, value in figures.items()
        if not abs(scores.per_object[name][figure] - value) <= TOLERANCE
    ]
    if differing:
        raise OfficialDifferenceError(f"{len(differing)} figures differ from the official evaluation's, first: {differing[0]}")


def _lay_out(root: Path, names: Sequence[str], annotations: Path) -> None:
    """A DAVIS folder as the package wants it, around anybody's folder of annotations."""
    image_set = root / "ImageSets" / _YEAR / f"{_SPLIT}.txt"
    image_set.parent.mkdir(parents=True)
    image_set.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    masks = root / "Annotations" / _RESOLUTION
    masks.parent.mkdir()
    masks.symlink_to(annotations.resolve(), target_is_directory=True)


def _per_object(measures: dict[str, Any]) -> dict[str, dict[str, float]]:
    objects = list(measures["J"]["M_per_object"])
    return {
        name: {
            f"{measure}-{long}": float(measures[measure][short][index])
            for measure in ("J", "F")
            for short, long in _STATISTICS.items()
        }
        for index, name in enumerate(objects)
    }
