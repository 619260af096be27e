"""What stands in the rows of the tables: standings, seeds, rows per data set, and benchmarks that share a task."""

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.tasks import BENCHMARKS
from tables.collect import Slot, collect
from tables.layout import COMPONENTS, MAIN, Layout
from tables.make import render_all
from tables.reference import read_reference
from tables.rows import Table, build_table, standing

Write = Callable[..., Path]
VALUES = (61.25, 63.5, 60.75)


def _table(runs: Path, layout: Layout = MAIN) -> Table:
    return build_table(layout, read_reference(layout), collect(runs))


def _rows(runs: Path, name: str = "classification") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_all(runs)[f"{name}.csv"]), strict=True))


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, "measured"),
        ({"deviations": {"iterations": [40000, 20]}}, "measured-deviating"),
        ({"coverage": "subset", "deviations": {"iterations": [40000, 20]}}, "measured-subset"),
        ({"coverage": "sample", "deviations": {"iterations": [40000, 20]}}, "measured-sample"),
    ],
)
def test_only_the_whole_benchmark_by_the_published_protocol_is_plainly_measured(
    runs: Path, write: Write, options: dict[str, Any], status: str
) -> None:
    write("one", "segmentation", **options)
    assert standing(collect(runs)[0].measurements[0].result, "ade20k") == status
    assert {cell.status for cell in _table(runs).rows[-1].cells.values()} == {status}


def test_a_backbone_has_one_row_with_the_cells_of_its_tasks(runs: Path, write: Write) -> None:
    write("one", "davis", values={"J&F-Mean": 60.0, "J-Mean": 59.12345678901234, "F-Mean": float("nan")}, epoch=17)
    write("two", "detection", epoch=-1)
    table = _table(runs)
    assert [row.evaluated is None for row in table.rows] == [True] * 9 + [False] * 2
    one, two = table.rows[-2:]
    assert one.descriptors == {"method": "one", "backbone": "ViT-Ti/16", "pretraining_data": "", "epochs": "17"}
    texts = {key: cell.text for key, cell in one.cells.items()}
    assert texts == {"davis_jf_mean": "60.0", "davis_j_mean": "59.12345678901234", "davis_f_mean": ""}
    assert two.descriptors["epochs"] == ""
    assert list(two.cells) == [column.key for column in BENCHMARKS["coco"].columns]
    (of_davis,) = [row for row in _table(runs, COMPONENTS).rows if row.evaluated]
    assert (of_davis.descriptors["method"], list(of_davis.cells)) == ("one", ["davis_jf_mean"])


def test_every_metric_lands_in_its_column(runs: Path, write: Write) -> None:
    wanted = {
        "detection": {
            **{"bbox_mAP": "coco_box_ap", "bbox_mAP_50": "coco_box_ap50", "bbox_mAP_75": "coco_box_ap75"},
            **{"segm_mAP": "coco_mask_ap", "segm_mAP_50": "coco_mask_ap50", "segm_mAP_75": "coco_mask_ap75"},
        },
        "segmentation": {"mIoU": "ade20k_miou", "aAcc": "ade20k_aacc", "mAcc": "ade20k_macc"},
        "davis": {"J&F-Mean": "davis_jf_mean", "J-Mean": "davis_j_mean", "F-Mean": "davis_f_mean"},
    }
    expected: dict[str, str] = {}
    for task, columns in wanted.items():
        values = {metric: 1.5 * (len(expected) + number) for number, metric in enumerate(columns)}
        write("one", task, values=values)
        expected |= {key: repr(values[metric]) for metric, key in columns.items()}
    assert {key: cell.text for key, cell in _table(runs).rows[-1].cells.items()} == expected


def test_another_head_or_year_stands_in_its_own_table(runs: Path, write: Write) -> None:
    write("one", "segmentation", values={"mIoU": 40.0})
    write("one", "segmentation", folder="one/upernet", protocol="ade20k-upernet-160k", values={"mIoU": 44.0})
    write("two", "davis", protocol="davis-2016-label-propagation", values={"J&F-Mean": 80.0})
    row = _rows(runs, "upernet")[-1]
    assert (row["method"], row["upernet_miou"], row["upernet_miou_status"]) == ("one", "44.0", "measured")
    assert _rows(runs, "main")[-1]["ade20k_miou"] == "40.0"
    assert [row["davis_2016_jf_mean"] for row in _rows(runs, "davis_2016")] == ["80.0"]
    assert {row["row"] for name in ("components", "compatibility") for row in _rows(runs, name)} == {"published"}
    page = render_all(runs)["tables.md"]
    assert "**44.0**" in page
    assert "| published | DINO+SelfPatch | ViT-S/16 | ImageNet-1k | – | <u>43.2</u> | – | – |" in page
    assert _rows(runs) == []
    assert "## Classification" not in page


def test_k_nn_and_probe_may_be_two_results(runs: Path, write: Write) -> None:
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
    (row,) = _rows(runs)
    assert (row["knn_result"], row["linear_result"]) == ("one/knn/result.json", "one/linear/result.json")


def test_a_row_per_data_set_with_columns_for_every_k(runs: Path, write: Write) -> None:
    write("one", "classification", values={"200-NN top-1": 33.0}, intervals={"200-NN top-1": [31.5, 34.25]})
    path = write("one", "classification", folder="one/other", settings={"knn_features": "CLS token", "linear_features": "two"})
    path.write_text(path.read_text().replace('"CIFAR-10"', '"imagenet"'))
    cifar, imagenet = _rows(runs)
    assert [name for name in cifar if name.endswith("top1")] == ["knn10_top1", "knn20_top1", "knn200_top1", "linear_top1"]
    names = ("dataset", "knn200_top1", "knn200_top1_low", "knn200_top1_high")
    assert [cifar[name] for name in names] == ["CIFAR-10 test", "33.0", "31.5", "34.25"]
    assert (imagenet["dataset"], imagenet["knn200_top1"], imagenet["knn_features"]) == ("imagenet test", "", "CLS token")
    assert "33.0<sup>1</sup> <sub>31.5–34.2</sub>" in render_all(runs)["tables.md"]
    assert r"\pbInterval{\pbMeasured{33.0}}{31.5}{34.2}" in render_all(runs)["classification.tex"]


def test_a_probes_deviation_leaves_k_nn_a_benchmark_number(runs: Path, write: Write) -> None:
    write("one", "classification", deviations={"epochs": [100, 1]})
    (row,) = _rows(runs)
    assert (row["knn10_top1_status"], row["linear_top1_status"]) == ("measured", "measured-deviating")
    assert (row["knn_deviations"], row["linear_deviations"]) == ("", '{"epochs": [100, 1]}')


@pytest.fixture
def three_seeds(write: Write) -> None:
    for seed, value in enumerate(VALUES):
        source = {"recipe_sha256": "a" * 64, "seed": seed}
        write(f"run{seed}", "davis", values={"J&F-Mean": value}, source=source, sha256=f"{seed}" * 64)


@pytest.mark.usefixtures("three_seeds")
def test_pages_show_mean_spread_and_number(runs: Path, write: Write) -> None:
    files = render_all(runs)
    assert f"{statistics.fmean(VALUES):.1f} ± {statistics.stdev(VALUES):.1f} (n=3)" == "61.8 ± 1.5 (n=3)"
    assert "<u>61.8 ± 1.5 (n=3)</u><sup>1,2,3</sup>" in files["tables.md"]
    assert r"\pbMeasured{\pbSecond{\pbSpread{61.8}{1.5}{3}}}" in files["main.tex"]
    assert "run0, run1, run2" in files["main.tex"]
    write("mine", "davis", values={"J&F-Mean": 62.0})
    pages = [render_all(runs, name)["tables.md"] for name in ("run1", "run0, run1, run2")]
    assert ["62.0</u><sup>1</sup> (+0.2)" in page for page in pages] == [True, True]


@pytest.mark.usefixtures("three_seeds")
def test_the_csv_file_keeps_every_seed_in_full_precision(runs: Path) -> None:
    rows = _rows(runs, "main")[-4:]
    assert [row["row"] for row in rows] == ["mean", "seed", "seed", "seed"]
    assert [float(row["davis_jf_mean"]) for row in rows] == [statistics.fmean(VALUES), *VALUES]
    assert float(rows[0]["davis_jf_mean_spread"]) == statistics.stdev(VALUES)
    assert [row["davis_seeds"] for row in rows] == ["3", "1", "1", "1"]
    assert rows[0]["davis_result"] == "run0/davis/result.json; run1/davis/result.json; run2/davis/result.json"
    seeds = [(row["method"], row["pretraining_seed"], row["evaluation_seed"]) for row in rows[1:]]
    assert seeds == [("run0", "0", "0"), ("run1", "1", "0"), ("run2", "2", "0")]
    assert [row["backbone_sha256"][:1] for row in rows] == ["", "0", "1", "2"]


def test_a_seed_without_value_leaves_the_mean_without_one(runs: Path, write: Write) -> None:
    for seed, value in enumerate((50.0, float("nan"))):
        write("one", "segmentation", folder=f"{seed}/x", seed=seed, values={"mIoU": value})
    rows = _rows(runs, "main")[-3:]
    assert [row["ade20k_miou"] for row in rows] == ["", "50.0", ""]
    assert rows[0]["ade20k_miou_spread"] == ""
    assert "n/a<sup>1,2</sup>" in render_all(runs)["tables.md"]


def test_a_benchmark_that_no_layout_knows_gets_a_table_of_its_own(
    runs: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = tuple(
        dataclasses.replace(one, benchmark="davis_2030", key=f"new_{one.key}") for one in BENCHMARKS["davis"].columns
    )
    new = dataclasses.replace(BENCHMARKS["davis"], key="davis_2030", title="DAVIS-2030", protocol="davis-2030", columns=columns)
    monkeypatch.setitem(BENCHMARKS, "davis_2030", new)
    write("one", "davis", protocol="davis-2030", values={"J&F-Mean": 80.0})
    assert [row["new_davis_jf_mean"] for row in _rows(runs, "davis_2030")] == ["80.0"]
    assert "## DAVIS-2030" in render_all(runs)["tables.md"]
