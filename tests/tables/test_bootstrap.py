"""The paired bootstrap: properties, and a plain loop over the same draws."""

import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.bootstrap import FEWEST_ITEMS, Interval, Items, OtherItemsError, paired_bootstrap, resample, resampled_weights

VALUES = st.lists(st.floats(-50, 50, allow_nan=False), min_size=FEWEST_ITEMS, max_size=30)


def _means(values: Sequence[float]) -> Items:
    """Items whose figure is the mean of one number each."""
    values_N = np.array(values, dtype=np.float64)
    names = tuple(f"{number:04d}" for number in range(len(values)))
    return Items(names=names, figures=lambda weights_RN: {"mean": weights_RN @ values_N / weights_RN.sum(axis=1)})


def _interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    return paired_bootstrap([resample(_means(first))], [resample(_means(second))])["mean"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=VALUES)
def test_identical_results_never_differ_significantly(values: list[float]) -> None:
    interval = _interval(values, values)
    assert (interval.low, interval.high) == (0, 0)
    assert not interval.significant


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=VALUES, shift=st.floats(0.01, 20), sign=st.sampled_from([-1, 1]))
def test_a_constant_shift_is_significant(values: list[float], shift: float, sign: int) -> None:
    interval = _interval([value + sign * shift for value in values], values)
    assert (interval.low, interval.high) == pytest.approx((sign * shift, sign * shift))
    assert interval.significant


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=VALUES, others=VALUES)
def test_exchanging_the_results_mirrors_the_interval(values: list[float], others: list[float]) -> None:
    count = min(len(values), len(others))
    forth, back = _interval(values[:count], others[:count]), _interval(others[:count], values[:count])
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.significant == back.significant


def test_noise_is_rarely_significant_and_a_clear_difference_always() -> None:
    """Of 100 pairs without a difference about 5 are called different; resampling 40 items is a little too sure of itself."""
    generator = random.Random(0)
    noise = [[generator.gauss(0, 1) for _ in range(40)] for _ in range(200)]
    wrong = sum(_interval(noise[number], noise[number + 1]).significant for number in range(0, 200, 2))
    assert wrong <= 12
    assert all(_interval([value + 3 for value in noise[number]], noise[number + 1]).significant for number in range(0, 40, 2))


def test_it_is_a_plain_loop_over_the_same_draws() -> None:
    generator = random.Random(1)
    first, second = ([generator.gauss(mean, 2) for _ in range(11)] for mean in (0.5, 0))
    differences = []
    for weights_RN in resampled_weights(11, resamples=300, seed=5):
        for weights_N in weights_RN:
            drawn = [item for item, weight in enumerate(weights_N) for _ in range(int(weight))]
            assert len(drawn) == 11
            differences.append(
                statistics.fmean(first[item] for item in drawn) - statistics.fmean(second[item] for item in drawn)
            )
    ours = [resample(_means(values), resamples=300, seed=5) for values in (first, second)]
    assert ours[0].figures["mean"] - ours[1].figures["mean"] == pytest.approx(np.array(differences))
    found = paired_bootstrap(ours[:1], ours[1:])["mean"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))


def test_draws_are_uniform_and_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resampled_weights(7, resamples=1000)))
    monkeypatch.setattr("tables.bootstrap._DRAWS_PER_CHUNK", 70)
    assert np.array_equal(whole, np.concatenate(list(resampled_weights(7, resamples=1000))))
    assert (whole.sum(axis=1) == 7).all()
    assert whole.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)


def test_seeds_are_averaged_on_every_set() -> None:
    low, high, middle = (resample(_means([value + shift for value in range(8)])) for shift in (-1, 1, 0))
    interval = paired_bootstrap([low, high], [middle])["mean"]
    assert (interval.low, interval.high) == pytest.approx((0, 0))
    assert not interval.significant


def test_too_few_items_show_nothing() -> None:
    few = resample(_means([1.0] * (FEWEST_ITEMS - 1))), resample(_means([0.0] * (FEWEST_ITEMS - 1)))
    assert paired_bootstrap(few[:1], few[1:]) == {}


def test_a_figure_without_value_on_some_set_has_no_interval() -> None:
    assert paired_bootstrap([resample(_means([float("nan")] + [1.0] * 9))], [resample(_means([0.0] * 10))]) == {}


def test_other_items_and_unusable_names_are_refused() -> None:
    with pytest.raises(OtherItemsError):
        paired_bootstrap([resample(_means([1.0] * 7))], [resample(_means([1.0] * 8))])
    for names in ((), ("a", "a"), ("b", "a")):
        with pytest.raises(ValueError, match="unique and ascending"):
            Items(names=names, figures=lambda weights_RN: {})
