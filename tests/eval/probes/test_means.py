"""Metrics of single items: written in the order of their names, read with the means of the result, and tested for significance."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from eval.probes.means import ARTEFACT, ITEMS_FILE, read_items, write_items
from eval.result import Metric, write_result
from tables.compare import compare
from tables.layout import layouts_for
from tables.make import build_tables
from tables.significance import add_intervals
from tests.tables.conftest import make_result

NAMES = [f"{number:03}" for number in range(40)]


def test_items_that_do_not_count_leave_the_mean_alone(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 4.0])
    write_items(tmp_path, ["b", "c", "a"], {"mAP Hard": values, "mAP Easy": np.arange(3.0)})
    result = make_result("a", "retrieval", artefacts={ARTEFACT: ITEMS_FILE})
    items = read_items(result, tmp_path)
    assert items is not None
    assert items[0] == ("a", "b", "c")
    np.testing.assert_equal(items[1]["mAP Hard"], [4.0, 1.0, np.nan])
    assert read_items(dataclasses.replace(result, artefacts={}), tmp_path) is None
    write_items(tmp_path, ["a"], {"mAP Hard": np.array([np.nan])})
    with pytest.raises(ValueError, match="a metric without any item"):
        read_items(result, tmp_path)


@pytest.mark.parametrize(("found", "significant"), [(range(20), True), (range(2), False)])
def test_differences_between_runs_are_tested_over_the_items(found: range, significant: bool, tmp_path: Path) -> None:
    """Of 40 images, one run finds these more than the other."""
    metric, results = "CorLoc", []
    for name, hits in (("base", range(30, 40)), ("better", [*range(30, 40), *found])):
        values = np.zeros(len(NAMES))
        values[list(hits)] = 100.0
        folder = tmp_path / name / "object_discovery"
        write_items(folder, NAMES, {metric: values})
        result = make_result(name, "object_discovery", artefacts={ARTEFACT: ITEMS_FILE})
        results.append(dataclasses.replace(result, metrics={metric: Metric(value=float(values.mean()))}))
        write_result(folder, results[-1])
    layout = next(layout for layout in layouts_for(results) if layout.name == "lost")
    table = next(table for table in build_tables(tmp_path).tables if table.layout == layout)
    compare(table, "base")
    add_intervals([table])
    cells = [cell for row in table.rows for cell in row.cells.values() if cell.delta]
    assert [cell.delta_interval is not None and cell.delta_interval.significant for cell in cells] == [significant]
