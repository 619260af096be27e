"""The closing summary, from recorded results."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from eval.result import BackboneRecord, Dataset, Environment, Metric, Protocol, Result, write_result
from tools.evaluation.summary import Ended, duration, standing, summary

EXPECTED = """\
task            figure       value  95 % interval  standing         time   memory
--------------  -----------  -----  -------------  ---------  ----------  -------
davis           J&F-Mean      61.8                 benchmark  2 h 05 min  1.5 GiB
                J-Mean        60.2
                F-Mean        63.4
detection       failed with status 2, see above; another --name keeps runs apart
classification  10-NN top-1   50.0  25.0 to 75.0   [sample]         48 s  0.5 GiB

[sample]: generated data, shortened runs; not a benchmark number
classification: differs from the published protocol in neighbours

"""


def result(task: str, metrics: dict[str, Metric], **changes: Any) -> Result:
    made = Result(
        task=task,
        protocol=Protocol(name=task, version=1, settings={}),
        metrics=metrics,
        breakdown={},
        datasets={
            "test": Dataset(name="any", split="val", num_items=4, listing_sha256="0" * 64, coverage="full"),
        },
        backbone=BackboneRecord(name="toy", sha256="1" * 64, spec={}, source={}),
        config={},
        seed=0,
        environment=Environment(device="cpu", world_size=1, packages={}, code="unknown"),
        wall_time_s=48.2,
        peak_memory_bytes=2**29,
        artefacts={},
        inputs_sha256="2" * 64,
    )
    return dataclasses.replace(made, **changes)


def test_figures_standing_failures_and_files(tmp_path: Path) -> None:
    figures = {"J&F-Mean": 61.8, "J-Mean": 60.2, "J-Recall": 70.0, "F-Mean": 63.4}
    davis = {name: Metric(value=value) for name, value in figures.items()}
    write_result(tmp_path / "davis", result("davis", davis, wall_time_s=7503.0, peak_memory_bytes=3 * 2**29))
    # Of other inputs: must not be shown.
    write_result(tmp_path / "detection", result("detection", {"bbox_mAP": Metric(value=99.9)}))
    knn = result(
        "classification",
        {"10-NN top-1": Metric(value=50.0, interval_95=[25.0, 75.0])},
        protocol=Protocol(name="knn", version=1, settings={}, deviations={"neighbours": [[10, 20], [10]]}),
        datasets={"test": Dataset(name="any", split="val", num_items=4, listing_sha256="0" * 64, coverage="sample")},
    )
    write_result(tmp_path / "classification", knn)
    ended = [
        Ended(task=task, folder=tmp_path / task, status=status)
        for task, status in (("davis", 0), ("detection", 2), ("classification", 0))
    ]
    text = summary(ended, [tmp_path / name for name in ("main.csv", "main.tex", "tables.md", "report.html")])
    shown, _, files = text.partition("what  ")
    assert shown == EXPECTED
    lines = [line.split() for line in files.splitlines()[2:]]
    assert lines == [
        ["davis", str(tmp_path / "davis" / "result.json")],
        ["classification", str(tmp_path / "classification" / "result.json")],
        ["tables", str(tmp_path / "tables.md")],
        ["report", str(tmp_path / "report.html")],
        ["more", "2", "files", "(.csv,", ".tex)", "in", str(tmp_path)],
    ]


def test_all_failed(tmp_path: Path) -> None:
    text = summary([Ended(task="davis", folder=tmp_path, status=1)], [])
    assert text.splitlines()[2].startswith("davis  failed with status 1")


@pytest.mark.parametrize(
    ("coverage", "deviations", "word"),
    [
        ("full", {}, "benchmark"),
        ("full", {"topk": [5, 3]}, "deviating"),
        ("subset", {"topk": [5, 3]}, "subset"),
        ("sample", {}, "sample"),
    ],
)
def test_standing(coverage: Any, deviations: dict[str, list[Any]], word: str) -> None:
    dataset = Dataset(name="any", split="val", num_items=4, listing_sha256="0" * 64, coverage=coverage)
    protocol = Protocol(name="any", version=1, settings={}, deviations=deviations)
    assert standing(result("davis", {}, datasets={"test": dataset}, protocol=protocol)) == word


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
