"""The closing summary, from recorded results."""

import dataclasses
from pathlib import Path
from typing import Any

from eval.result import write_result
from tests.tables.conftest import make_result
from tools.summary import duration, summary, text_table


def write(folder: Path, task: str, values: dict[str, float], seconds: float = 48.2, **others: Any) -> None:
    """Write a result with these metrics alone."""
    result = make_result("toy", task, values=values, **others)
    metrics = {name: result.metrics[name] for name in values}
    write_result(folder / task, dataclasses.replace(result, metrics=metrics, wall_time_s=seconds, peak_memory_bytes=3 * 2**29))


def test_metrics_standing_failures_and_files(tmp_path: Path) -> None:
    write(tmp_path, "davis", {"J&F-Mean": 61.8, "J-Mean": 60.2, "J-Recall": 70.0, "F-Mean": 63.4}, 7503.0)
    # This result is of other inputs and must not be shown.
    write(tmp_path, "detection", {"bbox_mAP": 99.9})
    facts: dict[str, Any] = {"coverage": "sample", "deviations": {"neighbours": [[10, 20], [10]]}}
    write(tmp_path, "classification", {"10-NN top-1": 50.0}, intervals={"10-NN top-1": [25.0, 75.0]}, **facts)
    tables = [tmp_path / name for name in ("main.csv", "main.tex", "tables.md", "report.html")]
    text = summary(tmp_path, {"davis": 0, "detection": 2, "classification": 0}, tables)
    shown, _, files = text.partition("what  ")
    assert shown == (
        "task            metric         value  95 % interval    standing          time    memory\n"
        "--------------  -----------  -------  ---------------  ----------  ----------  --------\n"
        "davis           J&F-Mean        61.8                   benchmark   2 h 05 min   1.5 GiB\n"
        "                J-Mean          60.2\n"
        "                F-Mean          63.4\n"
        "classification  10-NN top-1     50.0  25.0 to 75.0     [sample]          48 s   1.5 GiB\n"
        "\n"
        "detection  failed with status 2, see above; another --name keeps runs apart\n"
        "\n"
        "[sample]: generated data, shortened runs; not a benchmark number\n"
        "classification: differs from the published protocol in neighbours\n"
        "\n"
    )
    assert [line.split() for line in files.splitlines()[2:]] == [
        ["davis", str(tmp_path / "davis" / "result.json")],
        ["classification", str(tmp_path / "classification" / "result.json")],
        ["tables", str(tmp_path / "tables.md")],
        ["report", str(tmp_path / "report.html")],
        ["more", "2", "files", "(.csv,", ".tex)", "in", str(tmp_path)],
    ]
    assert summary(tmp_path, {"davis": 1}, []) == "davis  failed with status 1, see above; another --name keeps runs apart"


def test_a_deviating_probe_leaves_knn_a_benchmark(tmp_path: Path) -> None:
    """The summary once called k-NN [deviating] where only the linear probe's epochs differ, which the tables call measured."""
    metrics = {"10-NN top-1": 50.0, "10-NN top-5": 70.0, "linear top-1": 60.0, "linear top-1, best epoch": 61.0}
    write(tmp_path, "classification", metrics, deviations={"epochs": [100, 3]})
    lines = summary(tmp_path, {"classification": 0}, []).splitlines()
    assert "benchmark" in lines[2]
    assert [line.split()[-1] for line in lines[3:6]] == ["70.0", "[deviating]", "61.0"]
    assert [line for line in lines if line.startswith("[deviating]: ")]


def test_a_table_leaves_out_empty_columns() -> None:
    table = text_table(("name", "value", "none"), [("a", "1.0", ""), ("bbb", "10.0", "")], ("value",))
    assert table.splitlines() == ["name      value", "------  -------", "a           1.0", "bbb        10.0"]
    assert text_table(("name",), []) == ""


def test_durations() -> None:
    times = {0.2: "0 s", 59.4: "59 s", 59.6: "1 min 00 s", 3599.4: "59 min 59 s", 3600: "1 h 00 min", 7199.9: "2 h 00 min"}
    assert {seconds: duration(seconds) for seconds in times} == times
