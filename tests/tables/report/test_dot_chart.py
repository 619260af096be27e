import math
from pathlib import Path
from typing import Any

import pytest

from tables.make import build_tables
from tables.notes import numbered
from tables.report.dot_chart import DotChart, dot_charts, per_sequence
from tables.report.groups import group_entries, number_entries
from tests.tables.report.conftest import WriteRun


def _charts(runs: Path, group: int = 0) -> list[DotChart]:
    evaluated = build_tables(runs).evaluated
    return dot_charts(group_entries(number_entries(evaluated, numbered(evaluated)))[group])


def _davis(**sequences: float) -> dict[str, Any]:
    return {"breakdown": {name: {"J&F-Mean": value} for name, value in sequences.items()}}


def test_a_sequence_is_the_mean_of_its_objects() -> None:
    figures = {"dogs-jump_1": 40.0, "dogs-jump_2": 50.0, "goat_10": 70.0, "no-number": 5.0, "_1": 6.0}
    assert per_sequence({name: {"J&F-Mean": value} for name, value in figures.items()}, "J&F-Mean") == {
        "dogs-jump": 45.0,
        "goat": 70.0,
        "no-number": 5.0,
        "_1": 6.0,
    }


def test_items_are_sorted_by_their_mean_and_dots_lie_at_their_values(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1, **_davis(x_1=10, y_1=90))
    run("b", "davis", 2, **_davis(x_1=30, y_1=70, z_1=75))
    (chart,) = _charts(runs)
    rows = chart.panels[0].rows
    assert [row.name for row in rows] == ["y", "z", "x"]
    assert [[(dot.series, dot.text) for dot in row.dots] for row in rows] == [
        [(0, "90.0"), (1, "70.0")],
        [(1, "75.0")],
        [(0, "10.0"), (1, "30.0")],
    ]
    assert chart.panels[0].paths[1].count("M") == 3
    assert chart.panels[0].paths[0].startswith(f"M{chart.scale.place(90):g} 9m")
    assert rows[0].words == "y\n90.0 a\n70.0 b"
    assert (chart.scale.low, chart.scale.high) == (0, 100)


def test_classes_without_a_value_are_named(runs: Path, run: WriteRun) -> None:
    classes = {"cat": {"bbox_mAP": 5.0, "segm_mAP": math.nan}, "dog": {"bbox_mAP": math.nan, "segm_mAP": math.nan}}
    run("a", "detection", breakdown=classes)
    boxes, masks = _charts(runs)
    assert [row.name for row in boxes.panels[0].rows] == ["cat"]
    assert boxes.without_value == ["dog"]
    assert (masks.panels, masks.without_value) == ([], ["cat", "dog"])


def test_many_classes_are_shown_from_both_ends(runs: Path, run: WriteRun) -> None:
    run("a", "classification", breakdown={f"n{k:04}": {"20-NN top-1": k / 10, "10-NN top-1": 1.0} for k in range(1000)})
    chart = _charts(runs)[0]
    names = [row.name for panel in chart.panels for row in panel.rows]
    assert chart.title == "20-NN top-1 per class"
    assert (len(names), names[0], names[59], names[60], names[-1]) == (120, "n0999", "n0940", "n0059", "n0000")
    assert chart.not_drawn == 880


def test_a_chart_needs_a_k_that_all_results_have(runs: Path, run: WriteRun) -> None:
    run("a", "classification", 1, breakdown={"cat": {"10-NN top-1": 50.0}}, artefacts={})
    (chart,) = _charts(runs)  # its metrics have k = 20, too, but its breakdown has not
    assert chart.title == "10-NN top-1 per class"


@pytest.mark.parametrize("count", [1, 20, 21, 80, 150])
def test_panels_are_equally_long(runs: Path, run: WriteRun, count: int) -> None:
    run("a", "segmentation", breakdown={f"class {k}": {"IoU": float(k % 100)} for k in range(count)})
    lengths = [len(panel.rows) for panel in _charts(runs)[0].panels]
    assert sum(lengths) == count
    assert max(lengths) <= 20
    assert max(lengths) - min(lengths) < len(lengths)


def test_more_backbones_than_colours_differ_in_shape(runs: Path, run: WriteRun) -> None:
    for number in range(14):
        run(f"b{number:02}", "davis", number, **_davis(x_1=number))
    series = _charts(runs)[0].series
    assert len({(one.colour, one.marker(0, 0)) for one in series}) == 14
    assert [one.shown for one in series] == [True] * 6 + [False] * 8
