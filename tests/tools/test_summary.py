"""The closing summary, from recorded results."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from eval.result import BackboneRecord, Dataset, Environment, Metric, Protocol, Result, write_result
from tools.summary import Ended, duration, standing_in_words, summary, text_table


def result(task: str, protocol: str, metrics: dict[str, Metric], coverage: Any = "full", **deviations: list[Any]) -> Result:
    return Result(
        task=task,
        protocol=Protocol(name=protocol, version=1, settings={}, deviations=deviations),
        metrics=metrics,
        breakdown={},
        datasets={"test": Dataset(name="any", split="val", num_items=4, listing_sha256="0" * 64, coverage=coverage)},
        backbone=BackboneRecord(name="toy", sha256="1" * 64, spec={}, source={}),
        config={},
        seed=0,
        environment=Environment(device="cpu", world_size=1, packages={}, code="unknown"),
        wall_time_s=48.2,
        peak_memory_bytes=2**29,
        artefacts={},
        inputs_sha256="2" * 64,
    )


def values(**metrics: float) -> dict[str, Metric]:
    return {name: Metric(value=value) for name, value in metrics.items()}


def test_metrics_standing_failures_and_files(tmp_path: Path) -> None:
    davis = result(
        "davis",
        "davis-2017-label-propagation",
        values(**{"J&F-Mean": 61.8, "J-Mean": 60.2, "J-Recall": 70.0, "F-Mean": 63.4}),
    )
    write_result(tmp_path / "davis", dataclasses.replace(davis, wall_time_s=7503.0, peak_memory_bytes=3 * 2**29))
    # Of other inputs: must not be shown.
    write_result(tmp_path / "detection", result("detection", "coco-mask-rcnn-1x", values(bbox_mAP=99.9)))
    knn = {"10-NN top-1": Metric(value=50.0, interval_95=[25.0, 75.0])}
    sample = result("classification", "dino-classification", knn, "sample", neighbours=[[10, 20], [10]])
    write_result(tmp_path / "classification", sample)
    ended = [
        Ended(task=task, folder=tmp_path / task, status=status)
        for task, status in (("davis", 0), ("detection", 2), ("classification", 0))
    ]
    text = summary(ended, [tmp_path / name for name in ("main.csv", "main.tex", "tables.md", "report.html")])
    shown, _, files = text.partition("what  ")
    assert shown == (
        "task            metric         value  95 % interval    standing          time    memory\n"
        "--------------  -----------  -------  ---------------  ----------  ----------  --------\n"
        "davis           J&F-Mean        61.8                   benchmark   2 h 05 min   1.5 GiB\n"
        "                J-Mean          60.2\n"
        "                F-Mean          63.4\n"
        "classification  10-NN top-1     50.0  25.0 to 75.0     [sample]          48 s   0.5 GiB\n"
        "\n"
        "detection  failed with status 2, see above; another --name keeps runs apart\n"
        "\n"
        "[sample]: generated data, shortened runs; not a benchmark number\n"
        "classification: differs from the published protocol in neighbours\n"
        "\n"
    )
    lines = [line.split() for line in files.splitlines()[2:]]
    assert lines == [
        ["davis", str(tmp_path / "davis" / "result.json")],
        ["classification", str(tmp_path / "classification" / "result.json")],
        ["tables", str(tmp_path / "tables.md")],
        ["report", str(tmp_path / "report.html")],
        ["more", "2", "files", "(.csv,", ".tex)", "in", str(tmp_path)],
    ]


def test_a_deviating_probe_leaves_knn_a_benchmark(tmp_path: Path) -> None:
    """The summary once called k-NN [deviating] where only the linear probe's epochs differ, which the tables call measured."""
    metrics = values(**{"10-NN top-1": 50.0, "10-NN top-5": 70.0, "linear top-1": 60.0, "linear top-1, best epoch": 61.0})
    write_result(tmp_path, result("classification", "dino-classification", metrics, epochs=[100, 3]))
    lines = summary([Ended(task="classification", folder=tmp_path, status=0)], []).splitlines()
    assert lines[2].split()[-5:] == ["benchmark", "48", "s", "0.5", "GiB"]
    assert [line.split()[-1] for line in lines[3:6]] == ["70.0", "[deviating]", "61.0"]
    assert [line for line in lines if line.startswith("[deviating]: ")]


def test_all_failed(tmp_path: Path) -> None:
    text = summary([Ended(task="davis", folder=tmp_path, status=1)], [])
    assert text == "davis  failed with status 1, see above; another --name keeps runs apart"


@pytest.mark.parametrize(
    ("coverage", "deviations", "word"),
    [
        ("full", {}, "benchmark"),
        ("full", {"topk": [5, 3]}, "[deviating]"),
        ("subset", {"topk": [5, 3]}, "[subset]"),
        ("sample", {}, "[sample]"),
    ],
)
def test_standing(coverage: Any, deviations: dict[str, list[Any]], word: str) -> None:
    assert standing_in_words(result("davis", "davis-2017-label-propagation", {}, coverage, **deviations), "davis") == word


def test_a_table_aligns_its_columns_and_leaves_out_empty_ones() -> None:
    rows = [("a", "1.0", "", "x"), ("bbb", "10.0", "", "")]
    assert text_table(("name", "value", "none", "rest"), rows, ("value",)).splitlines() == [
        "name      value  rest",
        "------  -------  ------",
        "a           1.0  x",
        "bbb        10.0",
    ]
    assert text_table(("name",), []) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (7199.9, "2 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
