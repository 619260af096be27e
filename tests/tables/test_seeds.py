"""Several results of one recipe: by which rule they are brought together, and what the tables say of them."""

import csv
import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tables.collect import CollectionError, Slot, collect
from tables.make import render_all

Write = Callable[..., Path]
RECIPE = "a" * 64


def _source(seed: int, recipe: str = RECIPE) -> dict[str, Any]:
    return {"recipe_sha256": recipe, "seed": seed}


def _names(runs: Path) -> list[str]:
    return [one.name for one in collect(runs)]


def _problem(runs: Path) -> str:
    with pytest.raises(CollectionError) as caught:
        collect(runs)
    (problem,) = caught.value.problems
    return problem


def test_seeds_of_the_fine_tuning_under_one_name_fill_one_place(runs: Path, write: Write) -> None:
    for seed in (0, 1, 2):
        write("one", "segmentation", folder=f"one/segmentation{seed}", seed=seed)
    (one,) = collect(runs)
    assert [found.result.seed for found in one.slots[Slot("ade20k", "")]] == [0, 1, 2]


def test_seeds_of_the_pretraining_are_one_row_under_one_name_or_several(runs: Path, write: Write) -> None:
    for seed in (0, 1):
        write("same", "davis", folder=f"same{seed}/davis", source=_source(seed), sha256=f"{seed}" * 64)
    for seed, name in enumerate(("left", "right")):
        write(name, "davis", source=_source(seed, "b" * 64), sha256=f"{seed + 2}" * 64)
    assert _names(runs) == ["left, right", "same"]
    assert [len(one.slots[Slot("davis", "")]) for one in collect(runs)] == [2, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"source": _source(1, "c" * 64)},
        {"source": _source(1), "epoch": 100},
        {"source": {**_source(1), "branch": "student"}},
        {"source": _source(0)},
        {"source": {"recipe_sha256": RECIPE}},
        {"source": {}},
        {"source": _source(1), "settings": {"topk": 7}},
        {"source": _source(1), "version": 2},
        {"source": _source(1), "listing": "f" * 64},
    ],
    ids=["recipe", "epoch", "branch", "seed", "no seed", "nothing", "settings", "version", "data"],
)
def test_backbones_that_differ_in_more_than_the_seed_stay_apart(runs: Path, write: Write, other: dict[str, Any]) -> None:
    write("one", "davis", source=_source(0), sha256="1" * 64)
    write("two", "davis", sha256="2" * 64, **other)
    assert _names(runs) == ["one", "two"]


def test_runs_with_other_benchmarks_stay_apart_and_that_is_said(
    runs: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("one", "davis", source=_source(0), sha256="1" * 64)
    write("two", "davis", source=_source(1), sha256="2" * 64)
    write("two", "detection", source=_source(1), sha256="2" * 64)
    with caplog.at_level("INFO"):
        assert _names(runs) == ["one", "two"]
    assert "one, two are of one recipe, and stay apart: one and two were not measured on the same benchmarks" in caplog.text


def test_the_same_backbone_under_two_names_is_two_rows(runs: Path, write: Write) -> None:
    write("six_heads", "davis", source=_source(0), sha256="1" * 64)
    write("eight_heads", "davis", source=_source(0), sha256="1" * 64)
    assert _names(runs) == ["eight_heads", "six_heads"]


def test_another_seed_with_other_settings_is_refused_under_the_same_name(runs: Path, write: Write) -> None:
    write("one", "segmentation", settings={"iterations": 40000})
    write("one", "segmentation", folder="one/again", seed=1, settings={"iterations": 20})
    assert _problem(runs) == (
        "one/segmentation/result.json: no further seed of the ade20k result one/again/result.json of 'one', since they differ in "
        "settings.iterations (20, 40000); remove one or evaluate under another --name"
    )


def test_two_trainings_with_the_same_seed_are_refused_under_one_name(runs: Path, write: Write) -> None:
    for number, seed in enumerate((0, 1, 1)):
        write("one", "davis", folder=f"{number}/davis", source=_source(seed), sha256=f"{number}" * 64)
    assert _problem(runs).startswith(
        "2/davis/result.json: 'one' is another backbone file here than in 1/davis/result.json, and not"
    )


VALUES = (61.25, 63.5, 60.75)


@pytest.fixture
def three_seeds(write: Write) -> None:
    for seed, value in enumerate(VALUES):
        write(f"run{seed}", "davis", values={"J&F-Mean": value}, source=_source(seed), sha256=f"{seed}" * 64)


@pytest.mark.usefixtures("three_seeds")
def test_pages_show_mean_spread_and_number(runs: Path) -> None:
    files = render_all(runs)
    assert f"{statistics.fmean(VALUES):.1f} ± {statistics.stdev(VALUES):.1f} (n=3)" == "61.8 ± 1.5 (n=3)"
    assert "<u>61.8 ± 1.5 (n=3)</u><sup>1,2,3</sup>" in files["tables.md"]
    assert r"\pbMeasured{\pbSecond{\pbSpread{61.8}{1.5}{3}}}" in files["main.tex"]
    assert "run0, run1, run2" in files["main.tex"]


@pytest.mark.usefixtures("three_seeds")
def test_a_row_of_seeds_is_a_baseline_by_any_of_its_names(runs: Path, write: Write) -> None:
    write("mine", "davis", values={"J&F-Mean": 62.0})
    for name in ("run1", "run0, run1, run2"):
        assert "62.0</u><sup>1</sup> (+0.2)" in render_all(runs, name)["tables.md"]


@pytest.mark.usefixtures("three_seeds")
def test_the_csv_file_keeps_every_seed_in_full_precision(runs: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(render_all(runs)["main.csv"]), strict=True))[-4:]
    assert [row["row"] for row in rows] == ["mean", "seed", "seed", "seed"]
    assert [float(row["davis_jf_mean"]) for row in rows] == [statistics.fmean(VALUES), *VALUES]
    assert float(rows[0]["davis_jf_mean_spread"]) == statistics.stdev(VALUES)
    assert [row["davis_seeds"] for row in rows] == ["3", "1", "1", "1"]
    assert rows[0]["davis_result"] == "run0/davis/result.json; run1/davis/result.json; run2/davis/result.json"
    assert [(row["method"], row["pretraining_seed"], row["evaluation_seed"]) for row in rows[1:]] == [
        ("run0", "0", "0"),
        ("run1", "1", "0"),
        ("run2", "2", "0"),
    ]
    assert [row["backbone_sha256"][:1] for row in rows] == ["", "0", "1", "2"]


def test_a_seed_without_value_leaves_the_mean_without_one(runs: Path, write: Write) -> None:
    for seed, value in enumerate((50.0, float("nan"))):
        write("one", "segmentation", folder=f"{seed}/x", seed=seed, values={"mIoU": value})
    rows = list(csv.DictReader(io.StringIO(render_all(runs)["main.csv"]), strict=True))[-3:]
    assert [row["ade20k_miou"] for row in rows] == ["", "50.0", ""]
    assert rows[0]["ade20k_miou_spread"] == ""
    assert "n/a<sup>1,2</sup>" in render_all(runs)["tables.md"]


def test_results_from_before_recipes_were_recorded_are_read(runs: Path, write: Write) -> None:
    path = write("old", "davis")
    assert "recipe_sha256" not in json.loads(path.read_text())["backbone"]["source"]
    assert _names(runs) == ["old"]
