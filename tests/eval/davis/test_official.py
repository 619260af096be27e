"""`--official`: with a stand-in that has the official package's interface, as the package itself is on no index."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eval.davis.scores import main

Run = Callable[..., tuple[int, str, str]]

PACKAGE = """
from pathlib import Path

import numpy as np

from tests.references.davis_scores import measure_sequence

ERROR = {error}


def statistics(values):
    ids = np.round(np.linspace(1, len(values), 5) + 1e-10) - 1
    ids = ids.astype(np.uint8)
    first, last = values[ids[0] : ids[1] + 1], values[ids[3] : ids[4] + 1]
    return np.nanmean(values) + ERROR, np.nanmean(values > 0.5), np.nanmean(first) - np.nanmean(last)


class DAVISEvaluation:
    def __init__(self, davis_root, task, gt_set, sequences="all", codalab=False):
        assert task == "semi-supervised" and codalab
        listed = Path(davis_root, "ImageSets", "2017", gt_set + ".txt").read_text().split()
        assert listed == sequences
        self.masks = Path(davis_root, "Annotations", "480p")
        self.sequences = sequences

    def evaluate(self, res_path, metric=("J", "F")):
        if {gives_up}:
            raise SystemExit
        result = {{name: {{"M": [], "R": [], "D": [], "M_per_object": {{}}}} for name in metric}}
        for name in self.sequences:
            for measure, objects in zip(metric, measure_sequence(self.masks / name, Path(res_path, name))):
                for number, values in enumerate(objects):
                    for figure, value in zip("MRD", statistics(values)):
                        result[measure][figure].append(value)
                    result[measure]["M_per_object"][f"{{name}}_{{number + 1}}"] = result[measure]["M"][-1]
        return result
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def install(error: float = 0.0, gives_up: bool = False) -> None:
        package = tmp_path / "site" / "davis2017"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "evaluation.py").write_text(PACKAGE.format(error=error, gives_up=gives_up))
        monkeypatch.syspath_prepend(tmp_path / "site")

    yield install
    for name in [name for name in sys.modules if name.startswith("davis2017")]:
        del sys.modules[name]


@pytest.fixture
def arguments(davis: Path, predictions: Path, tmp_path: Path) -> list[object]:
    options = {"annotations": davis, "predictions": predictions, "output": tmp_path / "scores", "jobs": 1}
    return [text for name, value in options.items() for text in (f"--{name}", value)]


def test_equal_figures_pass(arguments: list[object], run: Run, install: Callable[..., None], tmp_path: Path) -> None:
    install()
    status, _, errors = run(main, *arguments, "--official")
    assert (status, errors) == (0, "")
    assert (tmp_path / "scores/global_results-val.csv").is_file()


def test_any_difference_fails(arguments: list[object], run: Run, install: Callable[..., None], tmp_path: Path) -> None:
    install(error=1e-8)
    status, printed, errors = run(main, *arguments, "--official")
    assert (status, printed) == (2, "")
    assert errors.startswith("error: 12 figures differ from the official evaluation's, first: ")
    assert not (tmp_path / "scores").exists()


def test_masks_that_the_package_refuses(arguments: list[object], run: Run, install: Callable[..., None]) -> None:
    install(gives_up=True)
    status, _, errors = run(main, *arguments, "--official")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "gave up on these masks" in errors


def test_a_missing_package_is_named(arguments: list[object], run: Run) -> None:
    status, _, errors = run(main, *arguments, "--official")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "requirements-official.txt" in errors


def test_it_cannot_score_davis_2016(arguments: list[object], run: Run) -> None:
    status, _, errors = run(main, *arguments, "--official", "--year", "2016")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "2017 only" in errors
