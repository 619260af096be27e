import numpy as np
import pytest

from eval.classification.scores import accuracy, accuracy_per_class


def test_the_interval_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 3, 400)
    found = accuracy(ranks, 1, seed=0)
    resampled = 100 * (ranks[rng.integers(0, 400, (10_000, 400))] < 1).mean(1)
    assert found.percent == 100 * (ranks == 0).mean()
    assert found.interval_95 == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.3)
    assert accuracy(ranks, 1, seed=0) == found


def test_extremes_have_no_spread() -> None:
    assert accuracy(np.zeros(5, np.int64), 1, 0).interval_95 == (100, 100)
    assert accuracy(np.full(5, 7), 5, 0).percent == 0


def test_a_class_without_images_has_no_accuracy() -> None:
    per_class = accuracy_per_class(np.array([0, 1, 0]), np.array([0, 0, 2]), 4)
    np.testing.assert_array_equal(per_class, [50, np.nan, 100, np.nan])
