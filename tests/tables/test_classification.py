"""The table of classification, and UperNet's: benchmarks that several results of one task may fill."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tables.collect import CollectionError, Slot, collect
from tables.make import render_all

Write = Callable[..., Path]
KNN = {"10-NN top-1": 50.0, "10-NN top-5": 70.0}


def _rows(runs: Path, name: str = "classification") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_all(runs)[f"{name}.csv"]), strict=True))


def _keep(path: Path, metrics: str, classifier: str) -> None:
    """Leave only one classifier's figures."""
    content = json.loads(path.read_text())
    content["metrics"] = {name: value for name, value in content["metrics"].items() if metrics in name}
    content["protocol"]["settings"]["classifiers"] = [classifier]
    path.write_text(json.dumps(content))


def test_k_nn_and_probe_may_be_two_results(runs: Path, write: Write) -> None:
    _keep(write("one", "classification", folder="one/knn"), "NN", "knn")
    _keep(write("one", "classification", folder="one/linear", seed=3), "linear", "linear")
    (one,) = collect(runs)
    assert {slot: [found.path for found in results] for slot, results in one.slots.items()} == {
        Slot("knn", "CIFAR-10 test"): ["one/knn/result.json"],
        Slot("linear", "CIFAR-10 test"): ["one/linear/result.json"],
    }
    (row,) = _rows(runs)
    assert (row["knn_result"], row["linear_result"]) == ("one/knn/result.json", "one/linear/result.json")


def test_the_same_figures_twice_are_refused(runs: Path, write: Write) -> None:
    write("one", "classification")
    _keep(write("one", "classification", folder="one/knn"), "NN", "knn")
    with pytest.raises(CollectionError) as caught:
        collect(runs)
    assert caught.value.problems == [
        "one/knn/result.json: a second knn CIFAR-10 test result of 'one' with the same seed, beside one/classification/result.json; "
        "remove one or evaluate under another --name"
    ]


def test_a_row_per_data_set_with_columns_for_every_k(runs: Path, write: Write) -> None:
    write("one", "classification", values={"200-NN top-1": 33.0}, intervals={"200-NN top-1": [31.5, 34.25]})
    path = write("one", "classification", folder="one/other", settings={"knn_features": "CLS token", "linear_features": "two"})
    path.write_text(path.read_text().replace('"CIFAR-10"', '"imagenet"'))
    cifar, imagenet = _rows(runs)
    assert [name for name in cifar if name.endswith("top1")] == ["knn10_top1", "knn20_top1", "knn200_top1", "linear_top1"]
    assert (cifar["dataset"], cifar["knn200_top1"], cifar["knn200_top1_low"], cifar["knn200_top1_high"]) == (
        "CIFAR-10 test",
        "33.0",
        "31.5",
        "34.25",
    )
    assert (imagenet["dataset"], imagenet["knn200_top1"], imagenet["knn_features"]) == ("imagenet test", "", "CLS token")
    page = render_all(runs)["tables.md"]
    assert "33.0<sup>1</sup> <sub>31.5–34.2</sub>" in page
    assert r"\pbInterval{\pbMeasured{33.0}}{31.5}{34.2}" in render_all(runs)["classification.tex"]


def test_a_probes_deviation_leaves_k_nn_a_benchmark_number(runs: Path, write: Write) -> None:
    write("one", "classification", deviations={"epochs": [100, 1]})
    (row,) = _rows(runs)
    assert (row["knn10_top1_status"], row["linear_top1_status"]) == ("measured", "measured-deviating")
    assert (row["knn_deviations"], row["linear_deviations"]) == ("", '{"epochs": [100, 1]}')


def test_there_are_no_published_rows_and_no_empty_section(runs: Path, write: Write) -> None:
    write("one", "davis")
    assert _rows(runs) == []
    assert "## Classification" not in render_all(runs)["tables.md"]
    assert "classification" not in render_all(runs)["tables.tex"]


def test_uper_net_stands_in_its_own_table_beside_semantic_fpn(runs: Path, write: Write) -> None:
    write("one", "segmentation", values={"mIoU": 40.0})
    write("one", "segmentation", folder="one/upernet", protocol="ade20k-upernet-160k", values={"mIoU": 44.0})
    row = _rows(runs, "upernet")[-1]
    assert (row["method"], row["upernet_miou"], row["upernet_miou_status"]) == ("one", "44.0", "measured")
    assert _rows(runs, "main")[-1]["ade20k_miou"] == "40.0"
    assert "**44.0**" in render_all(runs)["tables.md"]
    assert "| published | DINO+SelfPatch | ViT-S/16 | ImageNet-1k | – | <u>43.2</u> | – | – |" in render_all(runs)["tables.md"]


def test_davis_2016_is_no_davis_2017(runs: Path, write: Write) -> None:
    write("one", "davis", protocol="davis-2016-label-propagation", values={"J&F-Mean": 80.0})
    assert _rows(runs, "davis_2016")[0]["davis_2016_jf_mean"] == "80.0"
    assert all(row["row"] == "published" for name in ("main", "components", "compatibility") for row in _rows(runs, name))
