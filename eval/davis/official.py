"""The official DAVIS-2017 evaluation package beside our own metrics, where it is installed.

Source: davisvideochallenge/davis2017-evaluation ac7c43f, `DAVISEvaluation` in `davis2017/evaluation.py`.
"""

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TOLERANCE = 1e-9  # largest difference of a metric: both sum the same numbers in another order
_SPLIT, _YEAR, _RESOLUTION = "val", "2017", "480p"
_STATISTICS = {"M": "Mean", "R": "Recall", "D": "Decay"}


def compare_with_official(
    per_object: Mapping[str, Mapping[str, float]], names: Sequence[str], annotations: Path, predictions: Path
) -> None:
    """Score the sequences `names` again with the official package; `per_object` has our metrics by `SEQUENCE_ID`.

    ValueError if a metric differs by more than `TOLERANCE`, the package is not installed, or it refuses the masks.
    """
    try:
        package = importlib.import_module("davis2017.evaluation")
    except ImportError as error:
        raise ValueError(
            f"--official needs the official evaluation package ({error}); "
            "`uv pip install --python .venv/bin/python --no-deps -r requirements-official.txt` installs it from its repository"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        # A DAVIS folder as the package wants it, around anybody's folder of annotations.
        root = Path(folder)
        image_set, masks = root / "ImageSets" / _YEAR / f"{_SPLIT}.txt", root / "Annotations" / _RESOLUTION
        image_set.parent.mkdir(parents=True)
        image_set.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        masks.parent.mkdir()
        masks.symlink_to(annotations.resolve(), target_is_directory=True)
        evaluation = package.DAVISEvaluation(str(root), "semi-supervised", _SPLIT, sequences=list(names), codalab=True)
        try:
            measures = evaluation.evaluate(str(predictions))
        except SystemExit as error:  # after a line on stdout
            raise ValueError("the official evaluation gave up on these masks") from error
    official = {
        name: {
            f"{measure}-{long}": float(measures[measure][short][index])
            for measure in "JF"
            for short, long in _STATISTICS.items()
        }
        for index, name in enumerate(measures["J"]["M_per_object"])
    }
    if set(official) != set(per_object):
        raise ValueError(f"the official evaluation has objects {sorted(official)}, not {sorted(per_object)}")
    differing = [
        f"{name} {metric} {per_object[name][metric]!r} here, {value!r} there"
        for name, metrics in official.items()
        for metric, value in metrics.items()
        if not abs(per_object[name][metric] - value) <= TOLERANCE
    ]
    if differing:
        raise ValueError(f"{len(differing)} metrics differ from the official evaluation's, first: {differing[0]}")
