"""The paired bootstrap, by its properties and against a plain loop over the same draws; and the items of results."""

import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.collect import collect
from tables.compare import FEWEST_ITEMS, Interval
from tables.significance import Resampled, paired_bootstrap, read_items, resample, resampled_weights
from tests.tables.conftest import METRICS, WriteResult

VALUES = st.lists(st.floats(-50, 50, allow_nan=False), min_size=FEWEST_ITEMS, max_size=30)


def _means(values: Sequence[float]) -> Resampled:
    """Items with a number each; the metric is its mean."""
    values_N = np.array(values, dtype=np.float64)
    names = tuple(f"{number:04d}" for number in range(len(values)))
    return resample(names, lambda weights_RN: {"mean": weights_RN @ values_N / weights_RN.sum(axis=1)})


def _interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    return paired_bootstrap([_means(first)], [_means(second)])["mean"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=VALUES, shift=st.floats(0.01, 20), sign=st.sampled_from([-1, 1]))
def test_a_constant_shift_is_significant_and_none_is_not(values: list[float], shift: float, sign: int) -> None:
    interval = _interval([value + sign * shift for value in values], values)
    assert interval == pytest.approx((sign * shift, sign * shift))
    assert interval.significant
    same = _interval(values, values)
    assert (*same, same.significant) == (0, 0, False)


def test_it_is_a_plain_loop_over_the_same_draws() -> None:
    generator = random.Random(1)
    first, second = ([generator.gauss(mean, 2) for _ in range(11)] for mean in (0.5, 0))
    differences = []
    for weights_RN in resampled_weights(11):
        for weights_N in weights_RN:
            drawn = [item for item, weight in enumerate(weights_N) for _ in range(int(weight))]
            assert len(drawn) == 11
            differences.append(
                statistics.fmean(first[item] for item in drawn) - statistics.fmean(second[item] for item in drawn)
            )
    ours = [_means(values) for values in (first, second)]
    assert ours[0].metrics["mean"] - ours[1].metrics["mean"] == pytest.approx(np.array(differences))
    found = paired_bootstrap(ours[:1], ours[1:])["mean"]
    assert found == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))


def test_seeds_are_averaged_on_every_set() -> None:
    low, high, middle = (_means([value + shift for value in range(8)]) for shift in (-1, 1, 0))
    interval = paired_bootstrap([low, high], [middle])["mean"]
    assert interval == pytest.approx((0, 0))
    assert not interval.significant


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param([1.0] * (FEWEST_ITEMS - 1), [0.0] * (FEWEST_ITEMS - 1), id="too few items"),
        pytest.param([float("nan")] + [1.0] * 9, [0.0] * 10, id="no value on some set"),
        pytest.param([1.0] * 7, [1.0] * 8, id="other items"),
    ],
)
def test_what_shows_nothing_has_no_interval(first: list[float], second: list[float]) -> None:
    assert paired_bootstrap([_means(first)], [_means(second)]) == {}


def test_results_without_items_have_none(runs: Path, write: WriteResult) -> None:
    for task in METRICS:
        write("one", task)
    assert [read_items(measurement) for measurement in collect(runs)[0].measurements] == [None] * 4


@pytest.mark.parametrize(
    ("task", "artefact", "content"),
    [
        ("detection", "image_matches", b"no archive"),
        ("segmentation", "image_pixels", b"no archive"),
        ("segmentation", "image_pixels", None),
        ("classification", "predictions", b"class,10-NN rank\nx,0\n"),
        ("classification", "predictions", b"image,class,10-NN rank\nsame,x,0\nsame,x,0\n"),
        ("classification", "predictions", b"image,class,10-NN rank\nshort\n"),
        ("classification", "predictions", b""),
    ],
)
def test_damaged_items_are_named_and_mark_nothing(
    runs: Path, write: WriteResult, caplog: pytest.LogCaptureFixture, task: str, artefact: str, content: bytes | None
) -> None:
    path = write("one", task, artefacts={artefact: "items.file"}).parent / "items.file"
    if content is not None:
        path.write_bytes(content)
    assert read_items(collect(runs)[0].measurements[0]) is None
    assert f"one/{task}/result.json: its items cannot be read" in caplog.text
    assert caplog.text.count("\n") == 1
