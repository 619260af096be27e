"""The rows of the tables: standings, seeds, rows per data set, and benchmarks that share a task."""

import dataclasses
import json
import statistics
from pathlib import Path

import pytest

from eval.tasks import BENCHMARKS
from tables.collect import Slot, collect
from tables.layout import COMPONENTS, MAIN, Layout
from tables.reference import read_reference
from tables.rows import Table, build_table
from tests.tables.conftest import WriteResult, csv_rows, render_all

VALUES = (61.25, 63.5, 60.75)


def _table(runs: Path, layout: Layout = MAIN) -> Table:
    return build_table(layout, read_reference(layout), collect(runs))


def test_a_backbone_has_one_row_with_the_cells_of_its_tasks(runs: Path, write: WriteResult) -> None:
    write("one", "davis", values={"J&F-Mean": 60.0, "J-Mean": 59.12345678901234, "F-Mean": float("nan")}, epoch=0)
    write("two", "detection", epoch=-1)
    table = _table(runs)
    assert [row.evaluated is None for row in table.rows] == [True] * 9 + [False] * 2
    one, two = table.rows[-2:]
    assert one.descriptors == {"method": "one", "backbone": "ViT-Ti/16", "pretraining_data": "", "epochs": "0"}
    texts = {key: cell.text for key, cell in one.cells.items()}
    assert texts == {"davis_jf_mean": "60.0", "davis_j_mean": "59.12345678901234", "davis_f_mean": ""}
    assert two.descriptors["epochs"] == ""
    assert list(two.cells) == [column.key for column in BENCHMARKS["coco"].columns]
    (of_davis,) = [row for row in _table(runs, COMPONENTS).rows if row.evaluated]
    assert (of_davis.descriptors["method"], list(of_davis.cells)) == ("one", ["davis_jf_mean"])


def test_another_head_or_year_stands_in_its_own_table(runs: Path, write: WriteResult) -> None:
    write("one", "segmentation", values={"mIoU": 40.0})
    write("one", "segmentation", folder="one/upernet", protocol="ade20k-upernet-160k", values={"mIoU": 44.0})
    write("two", "davis", protocol="davis-2016-label-propagation", values={"J&F-Mean": 80.0})
    row = csv_rows(runs, "upernet")[-1]
    assert (row["method"], row["upernet_miou"], row["upernet_miou_status"]) == ("one", "44.0", "measured")
    assert csv_rows(runs, "main")[-1]["ade20k_miou"] == "40.0"
    assert [row["davis_2016_jf_mean"] for row in csv_rows(runs, "davis_2016")] == ["80.0"]
    assert {row["row"] for name in ("components", "compatibility") for row in csv_rows(runs, name)} == {"published"}
    assert csv_rows(runs, "classification") == []


def test_k_nn_and_probe_may_be_two_results(runs: Path, write: WriteResult) -> None:
    for classifier, pattern, seed in (("knn", "NN", 0), ("linear", "linear", 3)):
        path = write("one", "classification", folder=f"one/{classifier}", seed=seed)
        content = json.loads(path.read_text())
        content["metrics"] = {name: value for name, value in content["metrics"].items() if pattern in name}
        path.write_text(json.dumps(content))
    (one,) = collect(runs)
    assert {slot: [found.path for found in results] for slot, results in one.slots.items()} == {
        Slot("knn", "CIFAR-10 test"): ["one/knn/result.json"],
        Slot("linear", "CIFAR-10 test"): ["one/linear/result.json"],
    }
    (row,) = csv_rows(runs, "classification")
    assert (row["knn_result"], row["linear_result"]) == ("one/knn/result.json", "one/linear/result.json")


def test_a_row_per_data_set_with_columns_for_every_k(runs: Path, write: WriteResult) -> None:
    deviating = {"deviations": {"epochs": [100, 1]}}  # of the probe, which leaves k-NN a benchmark number
    write("one", "classification", values={"200-NN top-1": 33.0}, intervals={"200-NN top-1": [31.5, 34.25]}, **deviating)
    path = write("one", "classification", folder="one/other", settings={"knn_features": "CLS token", "linear_features": "two"})
    path.write_text(path.read_text().replace('"CIFAR-10"', '"imagenet"'))
    cifar, imagenet = csv_rows(runs, "classification")
    assert [name for name in cifar if name.endswith("top1")] == ["knn10_top1", "knn20_top1", "knn200_top1", "linear_top1"]
    names = ("dataset", "knn200_top1", "knn200_top1_low", "knn200_top1_high")
    assert [cifar[name] for name in names] == ["CIFAR-10 test", "33.0", "31.5", "34.25"]
    assert (imagenet["dataset"], imagenet["knn200_top1"], imagenet["knn_features"]) == ("imagenet test", "", "CLS token")
    assert (cifar["knn10_top1_status"], cifar["linear_top1_status"]) == ("measured", "measured-deviating")
    assert (cifar["knn_deviations"], cifar["linear_deviations"]) == ("", '{"epochs": [100, 1]}')
    assert "33.0<sup>1</sup> <sub>31.5–34.2</sub>" in render_all(runs)["tables.md"]
    assert r"\pbInterval{\pbMeasured{33.0}}{31.5}{34.2}" in render_all(runs)["classification.tex"]


def test_seeds_become_their_mean_and_a_baseline_by_each_of_their_names(runs: Path, write: WriteResult) -> None:
    for seed, value in enumerate(VALUES):
        source = {"recipe_sha256": "a" * 64, "seed": seed}
        write(f"run{seed}", "davis", values={"J&F-Mean": value}, source=source, sha256=f"{seed}" * 64)
    write("mine", "davis", values={"J&F-Mean": 62.0})
    assert f"{statistics.fmean(VALUES):.1f} ± {statistics.stdev(VALUES):.1f} (n=3)" == "61.8 ± 1.5 (n=3)"
    pages = [render_all(runs, name)["tables.md"] for name in ("run1", "run0, run1, run2")]
    assert ["61.8 ± 1.5 (n=3)<sup>2,3,4</sup>" in page for page in pages] == [True, True]
    assert ["62.0</u><sup>1</sup> (+0.2)" in page for page in pages] == [True, True]
    rows = csv_rows(runs, "main")[-4:]
    assert [row["row"] for row in rows] == ["mean", "seed", "seed", "seed"]
    assert [float(row["davis_jf_mean"]) for row in rows] == [statistics.fmean(VALUES), *VALUES]
    assert float(rows[0]["davis_jf_mean_spread"]) == statistics.stdev(VALUES)


def test_a_seed_without_value_leaves_the_mean_without_one(runs: Path, write: WriteResult) -> None:
    for seed, value in enumerate((50.0, float("nan"))):
        write("one", "segmentation", folder=f"{seed}/x", seed=seed, values={"mIoU": value})
    rows = csv_rows(runs, "main")[-3:]
    assert [(row["ade20k_miou"], row["ade20k_miou_spread"]) for row in rows] == [("", ""), ("50.0", ""), ("", "")]


def test_a_benchmark_that_no_layout_knows_gets_a_table_of_its_own(
    runs: Path, write: WriteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = tuple(
        dataclasses.replace(one, benchmark="davis_2030", key=f"new_{one.key}") for one in BENCHMARKS["davis"].columns
    )
    new = dataclasses.replace(BENCHMARKS["davis"], key="davis_2030", title="DAVIS-2030", protocol="davis-2030", columns=columns)
    monkeypatch.setitem(BENCHMARKS, "davis_2030", new)
    write("one", "davis", protocol="davis-2030", values={"J&F-Mean": 80.0})
    assert [row["new_davis_jf_mean"] for row in csv_rows(runs, "davis_2030")] == ["80.0"]
    assert "## DAVIS-2030" in render_all(runs)["tables.md"]
