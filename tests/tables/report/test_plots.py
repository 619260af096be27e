import math
import re
from pathlib import Path
from typing import Any

import pytest

from common.plots import read_log
from tables.report.data import make_section
from tables.report.plots import averaged, item_charts, training_curves, values_per_item
from tests.tables.report.conftest import WriteRun, groups_of


def _charts(runs: Path, group: int = 0) -> list[dict[str, Any]]:
    return item_charts(groups_of(runs)[group])


def _rows(chart: dict[str, Any]) -> list[str]:
    """What each row says when the mouse is there, from the top."""
    return [text for panel in chart["panels"] for text in re.findall(r"<title>(.*?)</title>", panel, flags=re.DOTALL)]


def _davis(**sequences: float) -> dict[str, Any]:
    return {"breakdown": {name: {"J&F-Mean": value} for name, value in sequences.items()}}


def test_a_sequence_is_the_mean_of_its_objects(runs: Path, run: WriteRun) -> None:
    objects = {"dogs-jump_1": 40.0, "dogs-jump_2": 50.0, "goat_10": 70.0, "no-number": 5.0, "_1": 6.0}
    run("a", "davis", **_davis(**objects))
    entry = groups_of(runs)[0].measurements[0]
    assert values_per_item(entry, "J&F-Mean", "sequences") == {"dogs-jump": 45.0, "goat": 70.0, "no-number": 5.0, "_1": 6.0}
    assert values_per_item(entry, "J&F-Mean", "images") == objects


def test_items_are_sorted_by_their_mean_and_say_their_values(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1, **_davis(x_1=10, y_1=90))
    run("b", "davis", 2, **_davis(x_1=30, y_1=70, z_1=75))
    (chart,) = _charts(runs)
    assert _rows(chart) == ["y\n90.0 a\n70.0 b", "z\n75.0 b", "x\n10.0 a\n30.0 b"]
    (panel,) = chart["panels"]
    assert panel.count('data-series="') == 2
    assert panel.count("<use") == 5


def test_classes_without_a_value_are_named(runs: Path, run: WriteRun) -> None:
    classes = {"cat": {"bbox_mAP": 5.0, "segm_mAP": math.nan}, "dog": {"bbox_mAP": math.nan, "segm_mAP": math.nan}}
    run("a", "detection", breakdown=classes)
    boxes, masks = _charts(runs)
    assert _rows(boxes) == ["cat\n5.0 a"]
    assert boxes["without_value"] == ["dog"]
    assert (masks["panels"], masks["without_value"]) == ([], ["cat", "dog"])


def test_many_classes_are_shown_from_both_ends(runs: Path, run: WriteRun) -> None:
    run("a", "classification", breakdown={f"n{k:04}": {"20-NN top-1": k / 10, "10-NN top-1": 1.0} for k in range(1000)})
    chart = _charts(runs)[0]
    names = [row.partition("\n")[0] for row in _rows(chart)]
    assert chart["title"] == "20-NN top-1 per class"
    assert (len(names), names[0], names[59], names[60], names[-1]) == (120, "n0999", "n0940", "n0059", "n0000")
    assert (chart["num_rows"], chart["folded"], chart["not_drawn"]) == (120, True, 880)
    run("b", "classification", 1, breakdown={"cat": {"10-NN top-1": 50.0}})  # k = 20 is not in the breakdowns of both
    assert [[chart["title"] for chart in item_charts(group)] for group in groups_of(runs)] == [["10-NN top-1 per class"], []]


def test_more_backbones_than_colours_differ_in_shape(runs: Path, run: WriteRun) -> None:
    for number in range(14):
        run(f"b{number:02}", "davis", number, **_davis(x_1=number))
    (chart,) = _charts(runs)
    assert len({(line["colour"], line["shape"]) for line in chart["legend"]}) == 14
    assert [line["shown"] for line in chart["legend"]] == [True] * 6 + [False] * 8
    assert [panel.count('class="series off"') for panel in chart["panels"]] == [8]


def test_a_long_log_is_averaged_and_says_so(runs: Path, run: WriteRun) -> None:
    run("a", "detection")
    curves = training_curves(groups_of(runs)[0])
    assert curves is not None
    plots = {plot["title"]: plot for plot in curves["runs"][0]["plots"]}
    assert list(plots) == ["Total loss", "Parts of the loss", "Training accuracy (%)", "Learning rate"]
    assert [name for name, _ in plots["Parts of the loss"]["legend"]] == ["loss_cls", "loss_bbox"]
    assert plots["Total loss"]["lines_per_point"] == 3
    log, _ = read_log(runs / "run0/detection/training/training.jsonl")
    points, size = averaged(log, "loss")
    assert (len(points), size) == (134, 3)
    # The first point is the mean of 5/1, 5/2 and 5/3, at iteration 2 of 400.
    assert points[0] == pytest.approx((2, (5 + 5 / 2 + 5 / 3) / 3))


def test_runs_are_compared_by_their_total_loss_and_a_log_that_is_gone_is_named(runs: Path, run: WriteRun) -> None:
    for number, name in enumerate(("a", "b", "gone"), start=1):
        run(name, "segmentation", number)
    (runs / "run3/segmentation/training/training.jsonl").unlink()
    curves = training_curves(groups_of(runs)[0])
    assert curves is not None
    assert re.findall(r'data-series="(\d)"', curves["loss"]["svg"]) == ["0", "1"]
    assert [line["measurement"].name for line in curves["legend"]] == ["a", "b", "gone"]
    problems = [one["problem"] for one in curves["runs"]]
    assert problems == ["", "", "run3/segmentation/training/training.jsonl is missing"]
    run("trains nothing", "davis")
    assert training_curves(groups_of(runs)[0]) is None


def test_incomparable_results_are_apart(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1)
    run("b", "davis", 2)
    run("c", "davis", 3, version=2)
    run("d", "davis", 4, listing="1" * 64, coverage="subset")
    groups = groups_of(runs)
    assert [[one.name for one in group.measurements] for group in groups] == [["a", "b"], ["c"], ["d"]]
    sections = [make_section(group, groups) for group in groups]
    assert [section["title"] for section in sections] == [f"DAVIS-2017: DAVIS 2017 val ({number})" for number in (1, 2, 3)]
    assert sections[1]["apart"] == ["protocol.version (1, 2)"]
    assert sections[0]["apart"] == []
