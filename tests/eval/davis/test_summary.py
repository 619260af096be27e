import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.davis.measures import ScoringError, SequenceMeasures
from eval.davis.summary import GLOBAL_FIGURES, frame_statistics, summarise


def measures(name: str, objects: int, frames: int, seed: int = 0) -> SequenceMeasures:
    region, boundary = np.random.default_rng(seed).random((2, objects, frames))
    return SequenceMeasures(name=name, region=region, boundary=boundary)


def test_quarters_share_their_border_frames() -> None:
    values = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    mean, recall, decay = frame_statistics(values)
    assert mean == pytest.approx(0.6)
    assert recall == pytest.approx(5 / 9)  # 0.5 itself does not count
    assert decay == pytest.approx((1.0 + 0.9 + 0.8) / 3 - (0.4 + 0.3 + 0.2) / 3)


def test_a_single_frame_has_no_decay() -> None:
    assert frame_statistics(np.array([0.7])) == (0.7, 1.0, 0.0)


def test_decay_of_a_sequence_longer_than_eight_bits() -> None:
    assert frame_statistics(np.repeat([1.0, 0.0], 300))[2] == 1


def test_every_object_counts_once() -> None:
    scores = summarise([measures("a", 1, 10), measures("b", 3, 5, seed=1)])
    assert list(scores.per_object) == ["a_1", "b_1", "b_2", "b_3"]
    assert tuple(scores.overall) == GLOBAL_FIGURES
    for name in GLOBAL_FIGURES:
        assert scores.overall[name] == pytest.approx(np.mean([figures[name] for figures in scores.per_object.values()]))


@given(st.permutations([measures(name, 1 + seed % 3, 6, seed) for seed, name in enumerate("abcd")]))
def test_the_order_of_sequences_changes_nothing(sequences: list[SequenceMeasures]) -> None:
    ordered = summarise(sorted(sequences, key=lambda item: item.name))
    assert summarise(sequences).overall == pytest.approx(ordered.overall, abs=1e-12)


def test_nothing_to_score() -> None:
    with pytest.raises(ScoringError, match="nothing to score"):
        summarise([measures("empty", 0, 4)])
