"""Which fields make two results incomparable, and which keep them from being seeds of one recipe."""

from typing import Any

import pytest

from eval.result import Result
from tables.comparability import benchmark_differences, row_differences, seed_differences
from tests.tables.conftest import VIT_TINY, make_result


def _fields(first: Result, second: Result, benchmark: str = "davis", *allowed: str) -> list[str]:
    return [one.field for one in benchmark_differences(first, second, benchmark, allowed)]


def test_name_backbone_seed_and_machine_do_not_matter() -> None:
    first = make_result("one", "davis")
    second = make_result(
        "another", "davis", seed=3, sha256="f" * 64, epoch=7, spec={**VIT_TINY, "embed_dim": 384, "num_heads": 6}
    )
    assert _fields(first, second) == []


def test_every_field_is_named_in_both_directions() -> None:
    first = make_result("one", "detection", version=2, listing="1" * 64, deviations={"taps": [[3], [2]], "crop": [1, 2]})
    second = make_result("two", "detection", coverage="subset", deviations={"taps": [[3], [5]]}, settings={"num_heads": 6})
    wanted = {"protocol.version", "heads", "settings.taps", "settings.crop"} | {
        f"dataset.{role}.{name}" for role in ("train", "test") for name in ("num_items", "listing_sha256", "coverage")
    }
    assert set(_fields(first, second, "coco")) == set(_fields(second, first, "coco")) == wanted
    (crop,) = [one for one in benchmark_differences(first, second, "coco") if one.field == "settings.crop"]
    assert str(crop) == "settings.crop (2, as published)"


def test_what_is_allowed_is_left_out_by_field_or_by_its_beginning() -> None:
    first, second = make_result("one", "detection", version=2, listing="1" * 64), make_result("two", "detection")
    assert _fields(first, second, "coco", "dataset", "protocol.version") == []
    assert _fields(first, second, "coco", "dataset.test", "protocol.vers") == [
        "protocol.version",
        "dataset.train.listing_sha256",
    ]


def test_a_deviation_alike_in_both_is_no_difference() -> None:
    first, second = (make_result(name, "davis", deviations={"topk": [5, 7]}) for name in ("one", "two"))
    assert _fields(first, second) == []


def test_results_of_one_row_may_differ_in_data_and_protocol_but_not_in_worth() -> None:
    davis, coco = make_result("one", "davis"), make_result("one", "detection", version=9)
    assert row_differences(davis, coco) == []
    subset = make_result("one", "detection", coverage="subset")
    assert [one.field for one in row_differences(davis, subset)] == ["dataset.test.coverage"]
    assert row_differences(davis, subset, ["dataset.test.coverage"]) == []


@pytest.mark.parametrize(
    ("benchmark", "settings", "matters"),
    [
        ("knn", {"epochs": 3}, False),
        ("knn", {"linear_blocks": 1}, False),
        ("knn", {"classifiers": ["knn"]}, False),
        ("knn", {"neighbours": [1]}, True),
        ("knn", {"crop": 96}, True),
        ("linear", {"neighbours": [1]}, False),
        ("linear", {"temperature": 0.1}, False),
        ("linear", {"epochs": 3}, True),
        ("linear", {"crop": 96}, True),
    ],
)
def test_seeds_agree_in_the_settings_of_their_classifier(benchmark: str, settings: dict[str, Any], matters: bool) -> None:
    first, second = make_result("one", "classification"), make_result("one", "classification", settings=settings, seed=1)
    assert bool(seed_differences(first, second, benchmark)) == matters


def test_seeds_are_of_one_network() -> None:
    first, second = make_result("one", "davis"), make_result("one", "davis", spec={**VIT_TINY, "class_token": True})
    assert seed_differences(first, second, "davis") == ["backbone.class_token (false, true)"]
