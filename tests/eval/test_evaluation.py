"""The frame around every task."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from backbones.file import read_backbone_file
from backbones.spec import ResNetSpec
from eval.evaluation import Evaluation, Figures, figures_line
from eval.result import Dataset, Metric, Protocol, ResultError, read_result, write_result
from tests.toy import write_toy_backbone

DATASET = Dataset(name="D", split="val", num_items=2, listing_sha256="0" * 64, coverage="subset")
FIGURES = Figures(metrics={"mIoU": Metric(value=12.345)}, breakdown={"wall": {"IoU": 1.0}}, artefacts={"log": "log.txt"})


@dataclass(frozen=True, kw_only=True)
class Options:
    backbone: Path
    output: Path
    name: str = ""
    seed: int = 3


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_backbone(tmp_path_factory.mktemp("backbone"), ResNetSpec(layers=(1, 1, 1, 1)))


def evaluation(backbone: Path, output: Path, name: str = "", seed: int = 3, epochs: int = 1) -> Evaluation:
    return Evaluation(
        task="segmentation",
        options=Options(backbone=backbone, output=output, name=name, seed=seed),
        backbone=read_backbone_file(backbone),
        protocol=Protocol(name="p", version=1, settings={"epochs": epochs}),
        datasets={"test": DATASET},
    )


def test_a_recorded_task_is_found_finished(backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = evaluation(backbone, tmp_path)
    assert given.finished() is None
    record = given.record(FIGURES, torch.device("cpu"), 2, 1.5, 100, further_config={"batch": 8})
    write_result(tmp_path, record)
    with caplog.at_level(logging.INFO):
        assert given.finished() == read_result(tmp_path / "result.json")
    assert "not run again" in caplog.text
    for other in (evaluation(backbone, tmp_path, seed=4), evaluation(backbone, tmp_path, epochs=2)):
        with pytest.raises(ResultError, match="other inputs"):
            other.finished()


def test_the_record_holds_what_was_given(backbone: Path, tmp_path: Path) -> None:
    given = evaluation(backbone, tmp_path)
    record = given.record(FIGURES, torch.device("cpu"), 2, 1.5, 100, further_config={"batch": 8})
    assert (record.metrics, record.breakdown, record.artefacts) == (FIGURES.metrics, FIGURES.breakdown, FIGURES.artefacts)
    assert record.config == {**asdict(given.options), "batch": 8}
    assert (record.seed, record.environment.world_size, record.wall_time_s, record.peak_memory_bytes) == (3, 2, 1.5, 100)
    assert record.backbone.name == backbone.stem
    assert evaluation(backbone, tmp_path, name="mine").record(FIGURES, torch.device("cpu"), 1, 0, 0).backbone.name == "mine"
    assert figures_line(given.options, record) == f"mIoU 12.35  (subset data)  {tmp_path / 'result.json'}"


def test_options_are_written_before_the_run(backbone: Path, tmp_path: Path) -> None:
    evaluation(backbone, tmp_path / "out").write_config()
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["seed"] == 3
