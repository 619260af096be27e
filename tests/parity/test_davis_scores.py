"""Metrics of the official evaluation (davis2017-evaluation)."""

import json
from pathlib import Path

import pytest

from eval.davis.data import DavisSplit, sequence_names
from eval.davis.scores import Scores, score_sequences

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def folder(golden_dir: Path) -> Path:
    return golden_dir / "davis_scores"


@pytest.fixture(scope="module")
def scores(folder: Path) -> Scores:
    split = DavisSplit(root=folder / "DAVIS")
    return score_sequences(sequence_names(split), split.masks_folder, folder / "predictions")


def test_global_metrics(folder: Path, scores: Scores) -> None:
    expected = json.loads((folder / "expected.json").read_text())["global"]
    assert set(scores.overall) == set(expected)
    assert scores.overall == pytest.approx(expected, rel=0, abs=TOLERANCE)


def test_metrics_of_every_object(folder: Path, scores: Scores) -> None:
    expected = json.loads((folder / "expected.json").read_text())["per_object"]
    assert set(scores.per_object) == set(expected)
    for name, metrics in expected.items():
        found = scores.per_object[name]
        assert found["J-Mean"] == pytest.approx(metrics["J"], rel=0, abs=TOLERANCE), name
        assert found["F-Mean"] == pytest.approx(metrics["F"], rel=0, abs=TOLERANCE), name
