"""Results that were made by running give the recorded tables, byte by byte."""

from pathlib import Path

import numpy as np
import pytest

from eval.tasks import TASKS
from tables.__main__ import main
from tables.collect import Measurement, collect
from tables.layout import benchmarks_of
from tables.layout import metrics_of as metrics_of_benchmark
from tests.conftest import RunMain
from tests.tables.conftest import render_all

RECORDED = Path(__file__).parent / "recorded"
RESULTS, TABLES = RECORDED / "results", RECORDED / "tables"


def test_the_tables_are_the_recorded_ones() -> None:
    files = render_all(RESULTS, "dino")
    assert sorted(files) == sorted(path.name for path in TABLES.iterdir()) != []
    for name, content in files.items():
        assert content.encode() == (TABLES / name).read_bytes(), name


MEASUREMENTS = [measurement for row in collect(RESULTS) for measurement in row.measurements]


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda measurement: measurement.path)
def test_the_items_give_the_metrics_of_their_result(measurement: Measurement) -> None:
    """Every item once: what the task computed with code of its own."""
    items = TASKS[measurement.result.task].load("items", "read_items")(measurement.result, measurement.folder)
    assert items is not None
    names, means, metrics_of = items
    assert len(names) == measurement.result.datasets["test"].num_items
    found = {name: values_N.mean() for name, values_N in means.items()}
    if metrics_of:
        found |= {name: value for name, (value,) in metrics_of(np.ones((1, len(names)))).items()}
    for benchmark in benchmarks_of(measurement.result):
        for name in metrics_of_benchmark(measurement.result, benchmark):
            assert found[name] == pytest.approx(measurement.result.metrics[name].value, abs=1e-9), name


def test_nothing_keeps_them_from_being_compared(run_main: RunMain) -> None:
    run_main(main, ["check", "--runs", RESULTS]).output()
