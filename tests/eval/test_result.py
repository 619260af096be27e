"""The result record survives its file."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from eval.result import (
    BackboneRecord,
    Dataset,
    Environment,
    Metric,
    Protocol,
    Result,
    ResultError,
    read_result,
    write_result,
)


def make_result(coverage: str = "full", **changes: object) -> Result:
    dataset = Dataset(name="DAVIS", split="val", num_items=2, listing_sha256="0", coverage=coverage)  # type: ignore[arg-type]
    result = Result(
        task="davis",
        protocol=Protocol(name="p", version=1, settings={"topk": 5}),
        metrics={"J&F-Mean": Metric(value=100 / 3), "empty": Metric(value=math.nan)},
        breakdown={"dog_1": {"J": 12.5, "F": math.nan}},
        datasets={"test": dataset},
        backbone=BackboneRecord(name="b", sha256="1", spec={"family": "vit"}, source={}),
        config={"output": "x"},
        seed=0,
        environment=Environment(device="cpu", world_size=1, packages={}, code="unknown"),
        wall_time_s=1.0,
        peak_memory_bytes=1,
        artefacts={},
        inputs_sha256="inputs",
    )
    return dataclasses.replace(result, **changes)  # type: ignore[arg-type]


def test_round_trip_in_full_precision_with_nan_as_null(tmp_path: Path) -> None:
    path = write_result(tmp_path, make_result())
    text = path.read_text()
    assert "NaN" not in text
    assert json.loads(text)["metrics"]["empty"]["value"] is None
    found = read_result(path)
    assert found.metrics["J&F-Mean"].value == 100 / 3
    assert math.isnan(found.metrics["empty"].value)
    assert math.isnan(found.breakdown["dog_1"]["F"])
    assert dataclasses.replace(found, metrics={}, breakdown={}) == make_result(metrics={}, breakdown={})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 99}', "\x00"])
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"result\.json") as caught:
        read_result(path)
    assert "\n" not in str(caught.value)


def test_only_full_data_and_the_published_protocol_make_a_benchmark_number() -> None:
    assert make_result().is_benchmark
    assert not make_result("subset").is_benchmark
    assert not make_result("sample").is_benchmark
    shortened = Protocol(name="p", version=1, settings={}, deviations={"epochs": [12, 1]})
    assert not make_result(protocol=shortened).is_benchmark
