"""Submissions to the official DAVIS-2016 leaderboard, scored against the metrics published there."""

import json
from pathlib import Path

import pytest

from eval.propagation.measures import score_sequences
from eval.propagation.videos import subfolders

pytestmark = pytest.mark.data


@pytest.mark.parametrize("method", ["osvos", "siammask"])
def test_published_metrics_are_reproduced(real_data_dir: Path, method: str) -> None:
    folder = real_data_dir / "davis2016"
    published = json.loads((folder / "official.json").read_text())[method]
    annotations = folder / "Annotations/480p"
    names = subfolders(annotations)
    assert len(names) == 20
    assert sorted(published) == ["F-Decay", "F-Mean", "F-Recall", "J-Decay", "J-Mean", "J-Recall"]
    overall = score_sequences(names, annotations, folder / method, one_object=True).overall
    # Published figures have three decimals.
    assert {name: overall[name] for name in published} == pytest.approx(published, abs=0.00051)
