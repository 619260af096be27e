"""Best and second, differences from a baseline, and what must not be compared."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.result import Metric, write_result
from tables.collect import CollectionError, collect
from tables.comparability import benchmark_differences, seed_differences
from tables.compare import compare
from tables.layout import COMPONENTS, MAIN, Layout, classification_layout
from tables.reference import read_reference
from tables.rows import Cell, Table, build_table
from tables.significance import add_intervals
from tests.tables.conftest import NO_BENCHMARK_NUMBERS, VIT_SMALL, VIT_TINY, WriteResult, make_result, render_all

JF = "davis_jf_mean"


def _compared(runs: Path, baseline: str | None = None, layout: Layout = MAIN) -> Table:
    table = build_table(layout, read_reference(layout), collect(runs))
    compare(table, baseline)
    add_intervals([table])
    return table


def _cells(table: Table, key: str = JF) -> dict[str, Cell]:
    return {row.descriptors["method"]: row.cells[key] for row in table.rows if key in row.cells}


def _ranks(table: Table, key: str = JF) -> dict[str, str | None]:
    return {name: cell.rank for name, cell in _cells(table, key).items() if cell.rank}


def _sequences(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {f"{name}_1": {"J&F-Mean": value, "J-Mean": value, "F-Mean": value} for name, value in values.items()}


def test_benchmark_numbers_alone_compete_with_the_published_ones(runs: Path, write: WriteResult) -> None:
    write("one", "davis", values={"J&F-Mean": 70.0})
    assert _ranks(_compared(runs)) == {"one": "best", "DINO+SelfPatch": "second"}
    write("one", "davis", values={"J&F-Mean": 62.74})  # prints as another one does
    for status, options in NO_BENCHMARK_NUMBERS.items():  # which never compete
        write(status, "davis", values={"J&F-Mean": 99.0}, **options)
    write("without value", "davis", values={"J&F-Mean": float("nan")})
    assert _ranks(_compared(runs)) == {"one": "best", "DINO+SelfPatch": "best", "DINO": "second"}


def test_an_older_protocol_and_other_data_do_not_compete_and_say_why(runs: Path, write: WriteResult) -> None:
    for name in ("old", "old2", "old3"):  # the newest protocol competes, however many results an older one has
        write(name, "davis", values={"J&F-Mean": 99.0})
    write("new", "davis", values={"J&F-Mean": 61.0}, version=2)
    write("new2", "davis", values={"J&F-Mean": 61.5}, version=2)
    write("other data", "davis", values={"J&F-Mean": 72.0}, version=2, listing="f" * 64)
    found = _compared(runs)
    assert _ranks(found) == {"DINO+SelfPatch": "best", "new2": "second"}
    assert _cells(found)["old"].incomparable == "protocol.version is 1, not 2"
    assert "dataset.test.listing_sha256" in _cells(found)["other data"].incomparable
    assert "- ‡ `old` does not compete: protocol.version is 1, not 2." in render_all(runs)["tables.md"]
    assert r"\pbIncomparable{\pbMeasured{99.0}}" in render_all(runs)["main.tex"]


def test_heads_of_pretraining_and_of_the_released_configuration_both_compete(runs: Path, write: WriteResult) -> None:
    for name, value, heads in (("as pretrained", 50.0, 6), ("as released", 60.0, 8), ("neither", 70.0, 4)):
        deviations = {} if heads == 8 else {"num_heads": [8, heads]}
        settings = {"num_heads": heads}
        write(name, "detection", values={"bbox_mAP": value}, spec=VIT_SMALL, settings=settings, deviations=deviations)
    found = _compared(runs)
    assert _ranks(found, "coco_box_ap") == {"as released": "best", "as pretrained": "second"}
    assert not any(cell.incomparable for cell in _cells(found, "coco_box_ap").values())
    page = render_all(runs)["tables.md"]
    assert "50.0</u>" in page
    assert "*[70.0]*" in page
    assert page.count("- `as pretrained` – COCO: the released configuration fine-tunes with 8 attention heads") == 1
    assert "as pretrained: COCO: the released configuration" in render_all(runs)["main.tex"]
    assert render_all(runs)["main_full.csv"].count("fine-tunes with 8 attention heads") == 1
    # Between the two there is no difference, which would be that of the heads; from a published row there is one for each.
    assert _cells(_compared(runs, "as released"), "coco_box_ap")["as pretrained"].delta is None
    deltas = {name: cell.delta for name, cell in _cells(_compared(runs, "DINO"), "coco_box_ap").items()}
    assert (deltas["as pretrained"], deltas["as released"]) == pytest.approx((50 - 40.8, 60 - 40.8))


def test_data_sets_compete_each_for_itself_and_a_single_value_is_no_best(runs: Path, write: WriteResult) -> None:
    for name, first, second in (("a", 90.0, 10.0), ("b", 80.0, 20.0)):
        write(name, "classification", values={"10-NN top-1": first} | ({"200-NN top-1": 5.0} if name == "a" else {}))
        path = write(name, "classification", folder=f"{name}/other", values={"10-NN top-1": second})
        path.write_text(path.read_text().replace('"CIFAR-10"', '"CIFAR-100"'))
    layout = classification_layout([collect(runs)[0].measurements[0].result])
    table = _compared(runs, layout=layout)
    assert [(row.descriptors["dataset"], row.descriptors["method"]) for row in table.rows] == [
        *[("CIFAR-10 test", "a"), ("CIFAR-10 test", "b"), ("CIFAR-100 test", "a"), ("CIFAR-100 test", "b")]
    ]
    assert [row.cells["knn10_top1"].rank for row in table.rows] == ["best", "second", "second", "best"]
    assert table.rows[0].cells["knn200_top1"].rank is None


def test_differences_are_from_the_baseline_of_the_same_backbone(runs: Path, write: WriteResult) -> None:
    write("small", "davis", values={"J&F-Mean": 61.25}, spec=VIT_SMALL)
    write("tiny", "davis", values={"J&F-Mean": 61.25})
    write("sample", "davis", values={"J&F-Mean": 61.25}, spec=VIT_SMALL, coverage="sample")
    deltas = {name: cell.delta for name, cell in _cells(_compared(runs, "DINO")).items() if cell.delta is not None}
    assert deltas == pytest.approx(
        {"MoCo-v3": 53.5 - 60.7, "MoBY": 54.7 - 60.7, "DINO+SelfPatch": 62.7 - 60.7, "small": 61.25 - 60.7}
    )
    assert "62.7** (+2.0)" in render_all(runs, "DINO")["tables.md"]
    write("DINO", "davis", values={"J&F-Mean": 50.0}, spec=VIT_SMALL)
    cells = _cells(_compared(runs, "DINO"))  # a measured baseline of that name is preferred for measured rows
    assert (cells["small"].delta, cells["DINO+SelfPatch"].delta) == pytest.approx((11.25, 2.0))
    table = _compared(runs, "DINO+SelfPatch", COMPONENTS)  # several rows have this name
    assert [row.baseline for row in table.rows] == [None] * len(table.rows)
    assert not any(cell.delta for row in table.rows for cell in row.cells.values())
    with pytest.raises(ValueError, match=r"--baseline nobody: no row has this name; there are MoCo-v2, .*, small, tiny"):
        render_all(runs, "nobody")


@pytest.mark.parametrize("options", [{}, {"version": 2}, {"listing": "f" * 64}, *NO_BENCHMARK_NUMBERS.values()])
def test_only_comparable_results_have_a_difference(runs: Path, write: WriteResult, options: dict[str, Any]) -> None:
    write("base", "davis", values={"J&F-Mean": 50.0})
    write("mine", "davis", values={"J&F-Mean": 51.5}, **options)
    assert _cells(_compared(runs, "base"))["mine"].delta == (None if options else pytest.approx(1.5))
    write("base", "davis", values={"J&F-Mean": 50.0}, **options)  # alike, if only on the same sample data
    assert _cells(_compared(runs, "base"))["mine"].delta == pytest.approx(1.5)


def test_a_difference_is_significant_by_the_items_alone(runs: Path, write: WriteResult) -> None:
    base = {f"sequence{number}": 40.0 + number for number in range(12)}
    clear = {name: value + 3 for name, value in base.items()}
    mixed = {name: value + (11 if number % 2 else -10) for number, (name, value) in enumerate(base.items())}
    for name, values, shown in (("base", base, 50.0), ("clear", clear, 53.0), ("mixed", mixed, 50.5)):
        write(name, "davis", values={"J&F-Mean": shown}, breakdown=_sequences(values))
    write("silent", "davis", values={"J&F-Mean": 90.0})  # carries no items
    write("other", "davis", values={"J&F-Mean": 50.0}, breakdown=_sequences({f"other{n}": 40.0 + n for n in range(12)}))
    cells = _cells(_compared(runs, "base"))
    intervals = {name: cells[name].delta_interval for name in ("clear", "mixed", "silent", "other")}
    assert {name: found and found.significant for name, found in intervals.items()} == {
        **{"clear": True, "mixed": False},
        **{"silent": None, "other": None},
    }
    assert [cells[name].delta for name in ("silent", "other")] == [40.0, 0.0]
    page, tex = render_all(runs, "base")["tables.md"], render_all(runs, "base")["main.tex"]
    assert r"53.0 (+3.0\*)" in page
    assert "50.5 (+0.5)" in page
    assert r"\pbMeasured{53.0}\pbSignificantDelta{+3.0}" in tex
    assert r"\pbMeasured{50.5}\pbDelta{+0.5}" in tex


def test_every_field_that_matters_is_named_in_both_directions_and_no_other() -> None:
    deviating: dict[str, Any] = {"deviations": {"topk": [5, 7]}}
    second = make_result("another", "davis", seed=3, sha256="f" * 64, epoch=7, spec=VIT_SMALL, **deviating)
    assert benchmark_differences(make_result("one", "davis", **deviating), second, "davis") == []
    first = make_result("one", "detection", version=2, listing="1" * 64, deviations={"taps": [[3], [2]], "crop": [1, 2]})
    second = make_result("two", "detection", coverage="subset", deviations={"taps": [[3], [5]]}, settings={"num_heads": 6})
    wanted = {"protocol.version", "heads", "settings.taps", "settings.crop"} | {
        f"dataset.{role}.{name}" for role in ("train", "test") for name in ("num_items", "listing_sha256", "coverage")
    }
    found, reverse = (benchmark_differences(*pair, "coco") for pair in ((first, second), (second, first)))
    assert {difference.field for difference in found} == {difference.field for difference in reverse} == wanted
    assert "settings.crop (2, as published)" in map(str, found)


@pytest.mark.parametrize(
    ("benchmark", "settings", "matters"),
    [
        ("knn", {"epochs": 3, "linear_blocks": 1, "classifiers": ["knn"]}, False),
        ("knn", {"neighbours": [1]}, True),
        ("linear", {"neighbours": [1], "temperature": 0.1}, False),
        ("linear", {"epochs": 3}, True),
        ("linear", {"crop": 96}, True),
    ],
)
def test_seeds_agree_in_their_network_and_the_settings_of_their_classifier(
    benchmark: str, settings: dict[str, Any], matters: bool
) -> None:
    first, second = make_result("one", "classification"), make_result("one", "classification", settings=settings, seed=1)
    assert bool(seed_differences(first, second, benchmark)) == matters
    other = make_result("one", "classification", spec=VIT_TINY | {"class_token": True})
    assert seed_differences(first, other, benchmark) == ["backbone.class_token (false, true)"]


def test_errors_are_printed_in_metres_and_the_lowest_is_the_best(
    runs: Path, write: WriteResult, caplog: pytest.LogCaptureFixture
) -> None:
    for name, rmse in (("near", 0.3094), ("far", 0.4031), ("tie", 0.3092)):
        write(name, "depth", values={"rmse": rmse, "abs_rel": 0.1, "a1": 0.9})
    page = render_all(runs)["tables.md"].partition("## NYU depth")[2]
    assert "lower is better for RMSE (m), AbsRel" in page
    assert page.count("**0.309**") == 2
    assert "<u>0.403</u>" in page
    broken = make_result("percent", "depth", values={"rmse": 0.3, "abs_rel": 0.1, "a1": 0.9})
    metrics = broken.metrics | {"rmse": Metric(value=30.9)}
    write_result(runs / "percent/depth", replace(broken, metrics=metrics))
    with pytest.raises(CollectionError):
        render_all(runs)
    assert "(metric rmse is in 'percent', not in m)" in caplog.text
