"""The small table that answers first, and the tables for people and for programs behind it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones.spec import ResNetSpec, spec_to_dict
from tables.__main__ import main
from tables.make import build_tables
from tables.report.page import render_report
from tables.significance import Items, interval_from
from tests.conftest import RunMain
from tests.tables.conftest import NO_BENCHMARK_NUMBERS, VIT_SMALL, WriteResult, render_all

LEVEL = {f"sequence{number}_1": dict.fromkeys(("J&F-Mean", "J-Mean", "F-Mean"), 62.0 + number % 3) for number in range(30)}
"""Values of 62 to 64, whose mean is 63."""


def _lines(runs: Path, first: str = "") -> list[tuple[str, ...]]:
    return build_tables(runs, first=first).headlines[0].lines


def _own(write: WriteResult, **options: Any) -> None:
    write("mine", "davis", values={"J&F-Mean": 63.0}, breakdown=LEVEL, spec=VIT_SMALL, **options)
    write("mine", "segmentation", values={"mIoU": 40.0}, spec=VIT_SMALL, **options)


def test_the_own_row_comes_first_then_the_papers_rows_of_the_backbone_with_difference_significance_and_standing(
    runs: Path, write: WriteResult
) -> None:
    _own(write)
    headline = build_tables(runs).headlines[0]
    assert headline.headings == ("ViT-S/16", "ADE20K mIoU", "DAVIS-2017 (J&F)m", "pretraining data", "standing")
    assert headline.lines == [
        ("mine", "40.0", "63.0", "–", "measured"),
        ("MoCo-v3", "35.3 (+4.7)", "53.5 (+9.5*)", "ImageNet-1k", "published"),
        ("MoBY", "39.5 (+0.5)", "54.7 (+8.3*)", "ImageNet-1k", "published"),
        ("DINO", "38.3 (+1.7)", "60.7 (+2.3*)", "ImageNet-1k", "published"),
        ("DINO+SelfPatch", "41.2 (-1.2)", "62.7 (+0.3 n.s.)", "ImageNet-1k", "published"),
    ]


def test_a_published_row_of_another_data_set_is_not_beside_the_own_one(runs: Path, write: WriteResult) -> None:
    """LOST's table has three rows of each backbone."""
    write("mine", "object_discovery", protocol="object-discovery-lost", values={"CorLoc": 60.9}, spec=VIT_SMALL)
    published = [line for line in _lines(runs) if line[0] == "DINO"]
    assert published == [("DINO", "61.9 (-1.0)", "ImageNet-1k", "published")]


def test_a_figure_whose_image_size_is_not_stated_is_compared_with_no_run(runs: Path, write: WriteResult) -> None:
    spec = spec_to_dict(ResNetSpec(layers=(3, 4, 6, 3)))
    write("mine", "retrieval", protocol="revisited-dino", values={"mAP Medium": 30.0}, spec=spec)
    assert _lines(runs, "mine")[0][1] == "30.0"
    assert [line[0] for line in _lines(runs)] == ["mine"]
    assert "35.4" in render_all(runs)["retrieval_dino.csv"]


def test_nothing_comes_before_the_small_table_on_the_page_and_in_the_report(runs: Path, write: WriteResult) -> None:
    _own(write)
    page = render_all(runs)["summary.md"]
    assert page.splitlines()[0].split("|")[1].strip() == "ViT-S/16"
    assert page.splitlines()[2].startswith("| **`mine`** ")
    report = render_report(build_tables(runs), max_picture_mb=6, max_films=6)
    first = report.index("<table")
    assert report.index("<h1>") < first < report.index("<nav")
    assert report.index("62.7 (+0.3 n.s.)") < report.index('id="table-main"')


@pytest.mark.parametrize(("status", "options"), NO_BENCHMARK_NUMBERS.items(), ids=NO_BENCHMARK_NUMBERS)
def test_what_is_no_benchmark_number_stands_in_brackets_without_difference(
    runs: Path, write: WriteResult, status: str, options: dict[str, Any]
) -> None:
    _own(write, **options)
    own, *others = _lines(runs)
    assert own == ("mine", "[40.0]", "[63.0]", "–", status.removeprefix("measured-"))
    assert others[-1] == ("DINO+SelfPatch", "41.2", "62.7", "ImageNet-1k", "published")


def test_a_backbone_without_published_rows_says_so_and_standings_may_differ(runs: Path, write: WriteResult) -> None:
    write("mine", "davis", spec=VIT_SMALL | {"depth": 3}, values={"J&F-Mean": float("nan")})
    write("mine", "segmentation", spec=VIT_SMALL | {"depth": 3}, coverage="subset")
    (own,) = _lines(runs)
    assert own == ("mine", "[10.0]", "n/a", "–", "ADE20K subset, DAVIS-2017 measured")
    assert "There is no published row of this backbone" in render_all(runs)["summary.md"]


def test_each_run_has_its_table_that_of_the_named_one_first_and_k_nn_of_20_neighbours(runs: Path, write: WriteResult) -> None:
    write("a", "davis", coverage="sample")
    write("b", "davis", values={"J&F-Mean": 58.0}, breakdown=LEVEL)
    write("b", "classification")
    made = build_tables(runs, first="b")
    assert [headline.name for headline in made.headlines] == ["b", "a"]
    assert made.headlines[0].headings[1:-2] == (
        *("DAVIS-2017 (J&F)m", "CIFAR-10 test 20-NN top-1", "CIFAR-10 test linear top-1"),
    )
    # The compatibility table has what the paper pretrained on COCO; its variants with and without negatives are told apart.
    labels = [(line[0], line[-2]) for line in made.headlines[0].lines[1:]]
    assert labels == [
        *(("MoBY", "COCO"), ("MoBY+SelfPatch, patch negatives: no", "COCO"), ("MoBY+SelfPatch, patch negatives: yes", "COCO")),
        *(("DINO", "COCO"), ("DINO+SelfPatch, patch negatives: no", "COCO")),
    ]


def test_a_published_figure_is_tested_against_the_items_of_every_seed(
    runs: Path, write: WriteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    _own(write)
    cell = build_tables(runs).tables[0].rows[-1].cells["davis_jf_mean"]
    names = tuple(f"sequence{number:02}" for number in range(30))
    items = [Items(names, {"J&F-Mean": np.arange(30.0) + shift}, {}) for shift in (0, 2)]
    monkeypatch.setattr("tables.significance.items_of", lambda _: items)
    low, high = interval_from(cell, 15.5) or (0.0, 0.0)
    assert low < 0 < high
    assert (low + high) / 2 == pytest.approx(0.0)
    low, _ = interval_from(cell, 9.0) or (0.0, 0.0)
    assert low > 0
    items.clear()
    assert interval_from(cell, 9.0) is None


def test_the_csv_file_for_people_is_the_papers_table_with_numbers_as_numbers(runs: Path, write: WriteResult) -> None:
    write("mine", "davis", values={"J&F-Mean": 100 / 3}, source={"pretraining_data": "imagenet/train"}, spec=VIT_SMALL)
    resnet = {"family": "resnet", "layers": [3, 4, 6, 3]}
    for seed in (0, 1):
        write("=a", "segmentation", folder=f"a/{seed}", seed=seed, values={"mIoU": 40.0 + seed}, spec=resnet)
    rows = list(csv.reader(io.StringIO(render_all(runs)["main.csv"])))
    assert rows[0][:3] == ["method", "backbone", "pretraining_data"]
    assert (len(rows[0]), rows[0][-2:]) == (3 + 12 + 2, ["standing", "seeds"])
    # A row of our own stands after the paper's rows of its backbone.
    assert [row[0] for row in rows[5:7]] == ["DetCo", "'=a"]
    assert rows[6] == ["'=a", "R50", "", *[""] * 6, "40.5", "10.1", "10.3", *[""] * 3, "measured", "2"]
    assert rows[-1] == ["mine", "ViT-S/16", "imagenet/train", *[""] * 9, "33.3", "10.1", "10.6", "measured", "1"]
    assert [row[-2:] for row in rows[1:6]] == [["published", ""]] * 5
    assert max(len(cell) for row in rows for cell in row) < 40


def test_results_are_lines_of_json_with_standing_and_provenance(runs: Path, write: WriteResult) -> None:
    write("b", "davis", values={"J&F-Mean": 100 / 3, "F-Mean": float("nan")}, coverage="subset", source={"recipe": "own"})
    write("a", "segmentation", deviations={"crop": [512, 64]})
    lines = [json.loads(line) for line in render_all(runs)["results.jsonl"].splitlines()]
    assert [line["path"] for line in lines] == ["a/segmentation/result.json", "b/davis/result.json"]
    assert lines[1]["metrics"]["J&F-Mean"]["value"] == 100 / 3
    assert lines[1]["metrics"]["F-Mean"]["value"] is None
    assert (lines[0]["standing"], lines[1]["standing"]) == ({"ade20k": "measured-deviating"}, {"davis": "measured-subset"})
    assert lines[1]["backbone"]["source"]["recipe"] == "own"
    assert "breakdown" not in lines[0]


def test_another_first_run_is_asked_for_by_name(run_main: RunMain, runs: Path, tmp_path: Path, write: WriteResult) -> None:
    for name in "ab":
        write(name, "davis")
    run_main(main, ["--runs", runs, "--output", tmp_path / "out", "--first", "b"]).output()
    first, _, second = (tmp_path / "out/summary.md").read_text().partition("\n---\n")
    assert ("**`b`**" in first, "**`a`**" in second) == (True, True)
