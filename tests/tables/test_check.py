"""`python -m tables check`: every difference gets its line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tables.__main__ import main
from tests.conftest import RunMain

Write = Callable[..., Path]


def _check(run_main: RunMain, runs: Path, *options: str) -> tuple[int, list[str]]:
    finished = run_main(main, ["check", "--runs", runs, *options])
    assert finished.stderr == ""
    return finished.status, finished.stdout.splitlines()


def test_comparable_results_pass(run_main: RunMain, runs: Path, write: Write) -> None:
    for name in ("a", "b"):
        for task in ("davis", "detection", "classification"):
            write(name, task)
    assert _check(run_main, runs) == (0, ["6 results; nothing keeps them from being compared"])


@pytest.mark.parametrize(
    ("task", "options", "line"),
    [
        ("davis", {"version": 2}, "davis: b/davis/result.json has protocol.version 2, a/davis/result.json has 1"),
        (
            "davis",
            {"listing": "f" * 64},
            f"davis: b/davis/result.json has dataset.test.listing_sha256 {'f' * 64}, a/davis/result.json has {'0' * 64}",
        ),
        (
            "detection",
            {"deviations": {"taps": [[3, 5, 7, 11], [2, 5, 8, 11]]}},
            "coco: b/detection/result.json has settings.taps [2, 5, 8, 11], a/detection/result.json has as published",
        ),
        (
            "detection",
            {"settings": {"num_heads": 8}},
            "coco: b/detection/result.json has heads 8 instead of 3, a/detection/result.json has as pretrained",
        ),
    ],
)
def test_a_difference_is_named_and_can_be_allowed(
    run_main: RunMain, runs: Path, write: Write, task: str, options: dict[str, Any], line: str
) -> None:
    write("a", task)
    write("b", task, **options)
    assert _check(run_main, runs) == (2, [line])
    field = line.split(" has ")[1].split()[0]
    for allowed in (field, field.rpartition(".")[0] or field):
        assert _check(run_main, runs, "--allow", allowed) == (0, ["2 results; nothing keeps them from being compared"])
    assert _check(run_main, runs, "--names", "a") == (0, ["1 results; nothing keeps them from being compared"])


def test_every_difference_has_its_line(run_main: RunMain, runs: Path, write: Write) -> None:
    write("a", "davis")
    write("b", "davis", version=2, deviations={"topk": [5, 7]})
    write("c", "davis", coverage="sample")
    status, lines = _check(run_main, runs)
    assert status == 2
    assert [line.split(" has ")[1].split()[0] for line in lines] == [
        *("protocol.version", "settings.topk"),
        *("dataset.test.num_items", "dataset.test.coverage"),
    ]
    assert len(_check(run_main, runs, "--allow", "dataset", "settings.topk")[1]) == 1


def test_a_row_of_different_worth_or_heads_is_named(run_main: RunMain, runs: Path, write: Write) -> None:
    write("a", "davis")
    write("a", "detection", settings={"num_heads": 8})
    write("a", "segmentation", coverage="sample")
    assert _check(run_main, runs) == (
        2,
        [
            "row of a: a/detection/result.json has heads 8 instead of 3, a/davis/result.json has as pretrained",
            "row of a: a/segmentation/result.json has dataset.test.coverage sample, a/davis/result.json has full",
        ],
    )
    assert _check(run_main, runs, "--allow", "heads", "dataset.test.coverage")[0] == 0


def test_classifiers_settings_touch_their_own_figures_alone(run_main: RunMain, runs: Path, write: Write) -> None:
    write("a", "classification")
    write("b", "classification", deviations={"epochs": [100, 1]})
    write("c", "classification", deviations={"temperature": [0.07, 0.1]})
    assert [line.partition(" has ")[0] for line in _check(run_main, runs)[1]] == [
        "linear CIFAR-10 test: b/classification/result.json",
        "knn CIFAR-10 test: c/classification/result.json",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--names", "nobody"], "error: --names nobody: no run is called so; there are a"),
        (["--allow", "colour"], "error: --allow colour: fields are heads and what begins with protocol, dataset, settings"),
        (["--runs", "nowhere"], "error: --runs nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(run_main: RunMain, runs: Path, write: Write, options: list[str], message: str) -> None:
    write("a", "davis")
    finished = run_main(main, ["check", "--runs", runs, *options])
    assert finished.status == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith(message)
    assert finished.stderr.count("\n") == 1


def test_unusable_results_are_named(run_main: RunMain, runs: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("a", "davis").write_text("{")
    assert run_main(main, ["check", "--runs", runs]).status == 2
    assert "a/davis/result.json: not a readable result file" in caplog.text
