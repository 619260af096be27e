"""The frame around every task: finished or not, what the record says, and that it survives its file."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch

from backbones.file import read_backbone_file
from backbones.spec import ResNetSpec
from eval.record import Evaluation, describe_dataset, differences, metrics_line
from eval.result import SAMPLE_MARKER, Dataset, Metric, Protocol, Result, ResultError, read_result, write_result
from tests.toy import write_toy_backbone

DATASET = Dataset(name="D", split="val", num_items=2, listing_sha256="0" * 64, coverage="subset")
METRICS = {"mIoU": Metric(value=12.345)}
BREAKDOWN = {"wall": {"IoU": 1.0}}
ARTEFACTS = {"log": "log.txt"}


@dataclass(frozen=True, kw_only=True)
class Options:
    backbone: Path
    output: Path
    name: str = ""
    seed: int = 3


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_backbone(tmp_path_factory.mktemp("backbone"), ResNetSpec(layers=(1, 1, 1, 1)))


@pytest.fixture
def given(backbone: Path, tmp_path: Path) -> Evaluation:
    return Evaluation(
        task="segmentation",
        options=Options(backbone=backbone, output=tmp_path),
        backbone=read_backbone_file(backbone),
        protocol=Protocol(name="p", version=1, settings={"epochs": 1}),
        datasets={"test": DATASET},
    )


def changed(given: Evaluation, **options: object) -> Evaluation:
    return replace(given, options=Options(**(asdict(given.options) | options)))


def record(given: Evaluation) -> Result:
    return given.record(METRICS, BREAKDOWN, ARTEFACTS, torch.device("cpu"), time.monotonic() - 1.5, further_config={"batch": 8})


def test_a_recorded_task_is_found_finished(given: Evaluation, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert given.finished() is None
    write_result(tmp_path, record(given))
    # It keeps its name, and says so.
    with caplog.at_level(logging.INFO):
        assert changed(given, name="mine").finished() == read_result(tmp_path / "result.json")
    assert "not run again" in caplog.text
    assert "keeps the name" in caplog.text
    for other, difference in (
        (replace(given, task="other"), "task segmentation -> other"),
        (replace(given, protocol=replace(given.protocol, settings={"epochs": 4})), "protocol.settings.epochs 1 -> 4"),
        (replace(given, datasets={"test": replace(DATASET, num_items=3)}), "datasets.test.num_items 2 -> 3"),
        (replace(given, datasets={"test": replace(DATASET, listing_sha256="1" * 64)}), "other datasets.test"),
        (replace(given, backbone=replace(given.backbone, sha256="1")), "other backbone"),
        (changed(given, seed=4), "seed 3 -> 4"),
    ):
        with pytest.raises(ResultError, match=rf"other inputs \({difference}\)"):
            other.finished()


def test_no_result_is_made_of_what_has_no_value(given: Evaluation) -> None:
    with pytest.raises(ValueError, match="no value for mIoU, since nothing counts there; no result is written"):
        given.record({"mIoU": Metric(value=math.nan)}, {}, {}, torch.device("cpu"), 0.0)


def test_the_record_holds_what_was_given(given: Evaluation, backbone: Path, tmp_path: Path) -> None:
    found = record(given)
    assert (found.metrics, found.breakdown, found.artefacts) == (METRICS, BREAKDOWN, ARTEFACTS)
    assert found.config == {**asdict(given.options), "batch": 8}
    assert (found.seed, found.environment.world_size, found.wall_time_s) == (3, 1, pytest.approx(1.5, abs=1))
    assert 2**20 < found.peak_memory_bytes < 2**40
    assert (found.environment.device, found.environment.packages["torch"]) == ("cpu", torch.__version__.split("+")[0])
    assert found.environment.code
    train = replace(DATASET, coverage="full")
    for test in (DATASET, replace(DATASET, coverage="sample")):
        assert replace(found, datasets={"train": train, "test": test}).coverage == test.coverage
    assert found.backbone.name == backbone.stem
    assert record(changed(given, name="mine")).backbone.name == "mine"
    assert metrics_line(tmp_path, found) == f"mIoU 12.35  (subset data)  {tmp_path / 'result.json'}"


def test_differences_are_named_by_their_path() -> None:
    before = {"a": {"b": 1, "c": (1, 2)}, "d": 3}
    assert differences(before, before) == ""
    assert differences(before, {"a": {"b": 2, "c": (1, 2)}, "e": 0}) == "a.b 1 -> 2, d 3 -> absent, e absent -> 0"
    repeated = [{"protocol": {"deviations": {"epochs": [12, epochs]}}} for epochs in (1, 2)]
    assert differences(*repeated) == "", "the settings have them already"
    assert differences({}, dict.fromkeys("abcdef", 0)).endswith("d absent -> 0 and 2 more")


def test_coverage_follows_size_restriction_and_marker(tmp_path: Path) -> None:
    def described(items: list[str], full_size: int = 2, restricted: bool = False) -> Dataset:
        return describe_dataset(tmp_path, "D", "val", items, full_size, restricted)

    assert described(["b", "a"]).coverage == "full"
    assert described(["b", "a"], full_size=3).coverage == "subset"
    assert described(["b", "a"], restricted=True).coverage == "subset"
    # The digest is of the set of items.
    assert described(["b", "a"]) == described(["a", "b"])
    assert described(["a", "b"]).listing_sha256 != described(["a", "c"]).listing_sha256
    (tmp_path / SAMPLE_MARKER).write_text("{}")
    assert described(["b", "a"]).coverage == "sample"


def test_round_trip_in_full_precision_with_nan_as_null(given: Evaluation, tmp_path: Path) -> None:
    metrics = {"J&F-Mean": Metric(value=100 / 3), "empty": Metric(value=math.nan)}
    result = replace(record(given), config={}, metrics=metrics, breakdown={"dog_1": {"J": 12.5, "F": math.nan}})
    path = write_result(tmp_path, result)
    assert json.loads(path.read_text())["metrics"]["empty"]["value"] is None
    assert "NaN" not in path.read_text()
    assert repr(read_result(path)) == repr(result), "NaN is not equal to itself"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 99}', "\x00"])
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"result\.json") as caught:
        read_result(path)
    assert "\n" not in str(caught.value)
