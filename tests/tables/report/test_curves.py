import json
from pathlib import Path

import pytest

from tables.make import build_tables
from tables.notes import numbered
from tables.report.artefacts import ArtefactError
from tables.report.curves import TrainingCurves, read_log, training_curves
from tables.report.groups import Group, group_entries, number_entries
from tests.tables.report.conftest import WriteRun


def _groups(runs: Path) -> list[Group]:
    evaluated = build_tables(runs).evaluated
    return group_entries(number_entries(evaluated, numbered(evaluated)))


def _curves(runs: Path) -> TrainingCurves:
    curves = training_curves(_groups(runs)[0])
    assert curves is not None
    return curves


def test_what_a_continued_run_logs_again_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [
        {"iteration": 1, "loss": 4.0},
        {"iteration": 2, "loss": 3.0},
        {"iteration": 3, "loss": 9.0},
        {"iteration": 2, "loss": 2.0},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"iteration": 3, "lo')
    assert read_log(path) == ([lines[0], lines[3]], 1)


@pytest.mark.parametrize(
    ("text", "problem"), [("", "holds no line"), ('{"loss": 1}\n', "without an iteration"), ("3\n", "without")]
)
def test_what_is_no_log_is_said(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(ArtefactError, match=problem):
        read_log(tmp_path / "log")


def test_a_long_log_is_averaged_and_says_so(runs: Path, run: WriteRun) -> None:
    run("a", "detection")
    plots = {plot.title: plot for plot in _curves(runs).runs[0].plots}
    assert list(plots) == ["Total loss", "Parts of the loss", "Training accuracy (%)", "Learning rate"]
    assert [curve.label for curve in plots["Parts of the loss"].curves] == ["loss_cls", "loss_bbox"]
    loss = plots["Total loss"]
    assert loss.lines_per_point == 3
    assert loss.curves[0].path.count("L") == 133
    # The first point: the mean of 5/1, 5/2 and 5/3 at iteration 2 of 400.
    first = loss.curves[0].path.split("L")[0].removeprefix("M").split()
    assert [float(place) for place in first] == pytest.approx([loss.x.place(2), loss.y.place((5 + 5 / 2 + 5 / 3) / 3)])


def test_runs_are_compared_by_their_total_loss(runs: Path, run: WriteRun) -> None:
    run("a", "segmentation", 1)
    run("b", "segmentation", 2)
    curves = _curves(runs)
    assert curves.loss is not None
    assert [curve.series for curve in curves.loss.curves] == [0, 1]
    assert [series.entry.name for series in curves.series] == ["a", "b"]


def test_a_log_that_is_gone_is_named(runs: Path, run: WriteRun) -> None:
    run("a", "detection")
    (runs / "run0/detection/training/training.jsonl").unlink()
    curves = _curves(runs)
    assert curves.runs[0].problem == "run0/detection/training/training.jsonl is missing"
    assert curves.loss is None


def test_davis_trains_nothing(runs: Path, run: WriteRun) -> None:
    run("a", "davis")
    assert training_curves(_groups(runs)[0]) is None


def test_incomparable_results_are_apart(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1)
    run("b", "davis", 2)
    run("c", "davis", 3, version=2)
    run("d", "davis", 4, listing="1" * 64, coverage="subset")
    groups = _groups(runs)
    assert [[entry.name for entry in group.entries] for group in groups] == [["a", "b"], ["c"], ["d"]]
    assert groups[1].differences(groups[0]) == ["protocol.version (1, 2)"]
