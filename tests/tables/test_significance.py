"""The sign-flip test and the paired bootstrap, by their properties and error rates; and the items of results."""

import io
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.probes.items import class_means
from tables.collect import collect
from tables.compare import FEWEST_ITEMS, RESAMPLES
from tables.rows import Interval
from tables.significance import (
    Items,
    difference_interval,
    read_items,
    resample,
    resampled_weights,
    sign_flip_interval,
)
from tests.tables.conftest import METRICS, WriteResult

VALUES = st.lists(st.floats(-50, 50, allow_nan=False), min_size=FEWEST_ITEMS, max_size=30)


def _items(values: Sequence[float]) -> Items:
    """Items with a number each; the metrics are its mean, and its mean as if that had to be resampled."""
    values_N = np.array(values, dtype=np.float64)
    resampled = resample(len(values), lambda weights_RN: {"resampled mean": weights_RN @ values_N / weights_RN.sum(axis=1)})
    return Items(tuple(f"{number:04d}" for number in range(len(values))), {"mean": values_N}, resampled)


def _intervals(first: Sequence[Items], second: Sequence[Items]) -> list[Interval | None]:
    """The intervals that the sign-flip test and the bootstrap give."""
    return [difference_interval(first, second, metric) for metric in ("mean", "resampled mean")]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=VALUES, shift=st.floats(0.01, 20), sign=st.sampled_from([-1, 1]))
def test_a_constant_shift_is_significant_and_none_is_not(values: list[float], shift: float, sign: int) -> None:
    for interval in _intervals([_items([value + sign * shift for value in values])], [_items(values)]):
        assert interval is not None
        assert interval.significant
        assert (interval.low + interval.high) / 2 == pytest.approx(sign * shift)
    assert _intervals([_items(values)], [_items(values)]) == [Interval(0, 0)] * 2


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0, 1.5))
def test_the_sign_flip_test_is_that_over_all_signs(seed: int, shift: float) -> None:
    """For 10 items, the test enumerates all 1,024 signs."""
    differences_N = np.random.default_rng(seed).normal(shift, 1, 10)
    all_signs = np.array(list(itertools.product((-1, 1), repeat=10)))
    probability = np.mean(np.abs(all_signs @ differences_N) >= abs(differences_N.sum()) - 1e-12)
    if abs(probability - 0.05) > 0.02:  # as close as the random signs come
        assert sign_flip_interval(differences_N).significant == (probability < 0.05)


@pytest.mark.parametrize("num_items", [10, 30, 100])
def test_equal_systems_are_told_apart_in_five_percent(num_items: int) -> None:
    """A percentile bootstrap did so in 9 to 11 % at 10 items."""
    differences_TN = np.random.default_rng(num_items).normal(0, 1, (1500, num_items))
    marked = [sign_flip_interval(differences_N).significant for differences_N in differences_TN]
    assert 0.035 < np.mean(marked) < 0.065


def test_the_bootstrap_is_a_plain_loop_over_the_same_draws() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(0.5, 2, 11).tolist(), generator.normal(0, 2, 11).tolist()
    differences = []
    for weights_RN in resampled_weights(11):
        for weights_N in weights_RN:
            drawn = [item for item, weight in enumerate(weights_N) for _ in range(int(weight))]
            assert len(drawn) == 11
            differences.append(
                statistics.fmean(first[item] for item in drawn) - statistics.fmean(second[item] for item in drawn)
            )
    assert len(differences) == RESAMPLES
    _, found = _intervals([_items(first)], [_items(second)])
    assert found == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))


def test_seeds_are_averaged() -> None:
    low, high, middle = (_items([value + shift for value in range(10)]) for shift in (-1, 1, 0))
    assert _intervals([low, high], [middle]) == [Interval(0, 0)] * 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param([1.0] * (FEWEST_ITEMS - 1), [0.0] * (FEWEST_ITEMS - 1), id="too few items"),
        pytest.param([float("nan")] + [1.0] * 9, [0.0] * 10, id="no value of an item"),
        pytest.param([1.0] * 10, [1.0] * 11, id="other items"),
    ],
)
def test_what_shows_nothing_has_no_interval(first: list[float], second: list[float]) -> None:
    assert _intervals([_items(first)], [_items(second)]) == [None, None]
    assert _intervals([], [_items(second)]) == [None, None]


def test_items_that_do_not_count_change_nothing() -> None:
    """As values of 0, queries without a right image widened the interval of a published figure."""
    values = np.random.default_rng(0).normal(50, 1, 20)
    nothing = [float("nan")] * 15
    without, with_them = (
        Items(_items([0.0] * len(means)).names, {"mean": means}, {}) for means in (values, np.array([*values, *nothing]))
    )
    expected = difference_interval([without], [Items(without.names, {"mean": np.full(20, 49.0)}, {})], "mean")
    published = np.array([*[49.0] * 20, *nothing])
    assert expected is not None
    assert difference_interval([with_them], [Items(with_them.names, {"mean": published}, {})], "mean") == expected
    assert difference_interval([with_them], [Items(with_them.names, {"mean": np.full(35, 49.0)}, {})], "mean") is None


def test_a_class_that_a_set_of_images_misses_is_missing_for_both_systems() -> None:
    """One system had 0 there and the other no value: the mean difference of the bootstrap was twice the difference itself."""
    images = 30
    labelled = np.zeros((images, 3))
    labelled[:, 0], labelled[:, 1], labelled[0, 2] = 100, 50, 20
    counts = []
    for strays in (2, 0):  # pixels that a system takes for the rare third class in every image but the first
        correct, predicted = labelled.copy(), labelled.copy()
        correct[1:, 0] -= strays
        predicted[1:, 0] -= strays
        predicted[1:, 2] += strays
        counts.append(np.stack([correct, predicted, labelled], axis=1))
    once_RN = np.ones((1, images))
    whole = class_means(counts[0], once_RN)["mIoU"] - class_means(counts[1], once_RN)["mIoU"]
    sets = [resample(images, lambda weights_RN, c=c: class_means(c, weights_RN))["mIoU"] for c in counts]
    differences_R = sets[0] - sets[1]
    assert not np.isnan(differences_R).any()
    rare_drawn_R = np.concatenate([weights_RN[:, 0] for weights_RN in resampled_weights(images)])
    assert {0, 1} < set(rare_drawn_R)
    # Without the rare class, what differs is the 2 % of the first class, in the mean of two classes.
    assert differences_R[rare_drawn_R == 0] == pytest.approx(-1)
    assert differences_R[rare_drawn_R == 1] == pytest.approx(whole[0])


def test_a_class_that_no_image_labels_stays_in_the_mean_as_in_the_metric() -> None:
    counts_N3K = np.array([[[8, 0], [8, 2], [10, 0]], [[10, 0], [10, 0], [10, 0]]], dtype=np.float64)
    found = class_means(counts_N3K, np.array([[1.0, 1.0], [0.0, 2.0]]))
    assert found["mIoU"] == pytest.approx([(90 + 0) / 2, (100 + 0) / 2])
    assert found["mAcc"] == pytest.approx([90, 100])


def test_results_without_items_have_none(runs: Path, write: WriteResult) -> None:
    for task in METRICS:
        write("one", task)
    assert [read_items(measurement) for measurement in collect(runs)[0].measurements] == [None] * len(METRICS)


def archive(**changes: Any) -> bytes:
    """The items of one image, for detection and segmentation alike, but for some arrays."""
    columns: dict[str, Any] = {
        "image": [0],
        "category": [0],
        "matched": [1],
        "ignored": [0],
        "truth_image": [0],
        "truth_category": [0],
    }
    columns = {name: np.array(values, np.int32) for name, values in columns.items()} | {"score": np.array([0.5])} | changes
    arrays = {f"{kind}_{name}": values for kind in ("bbox", "segm") for name, values in columns.items()}
    stream = io.BytesIO()
    counts = changes.get("counts", np.ones((1, 3, 2), np.int32))
    np.savez(stream, names=np.array(["a"]), categories=np.array(["b"]), counts=counts, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("task", "artefact", "content"),
    [
        ("detection", "image_matches", b"no archive"),
        ("detection", "image_matches", archive(image=np.zeros(2, np.int32))),
        ("detection", "image_matches", archive(image=np.array([3], np.int32))),
        ("detection", "image_matches", archive(image=np.array([-1], np.int32))),
        ("detection", "image_matches", archive(score=np.array([np.nan]))),
        ("detection", "image_matches", archive(matched=np.array(["x"]))),
        ("detection", "image_matches", archive(truth_image=np.zeros(0), truth_category=np.zeros(0))),
        ("segmentation", "image_pixels", archive(counts=np.full((1, 3, 2), -1))),
        ("segmentation", "image_pixels", archive(counts=np.zeros((1, 3, 2)))),
        ("segmentation", "image_pixels", archive(counts=np.zeros(()))),
        ("segmentation", "image_pixels", archive()[:-40]),
        ("segmentation", "image_pixels", None),
        ("classification", "predictions", b"class,10-NN rank\nx,0\n"),
        ("classification", "predictions", b"image,class,10-NN rank\nsame,x,0\nsame,x,0\n"),
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
