"""The depth task from backbone and data to a result that continues, and that significance can use."""

import dataclasses
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backbones.spec import ViTSpec
from eval import progress
from eval.__main__ import main
from eval.depth import training
from eval.depth.config import DepthConfig
from eval.depth.head import batch_loss, make_head
from eval.depth.items import read_items
from eval.depth.protocol import PUBLISHED, protocol_of, rules_of
from eval.depth.task import evaluate
from eval.depth.transforms import draw_changes
from eval.probes.heads import LinearHead
from eval.result import read_result
from eval.tasks import BENCHMARKS
from tables.make import build_tables, render_tables
from tests.conftest import RunMain
from tests.eval.conftest import PATCHES_OF_14, names_of_items
from tests.eval.nyu import HEIGHT, WIDTH, make_nyu
from tests.processes import evaluate_in_two
from tests.toy import write_toy_backbone


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nyu(tmp_path_factory.mktemp("nyu"))


@pytest.fixture
def config(nyu: Path, toy_file: Path, tmp_path: Path) -> DepthConfig:
    return DepthConfig(
        backbone=toy_file,
        data=nyu,
        output=tmp_path / "out",
        iterations=12,
        batch_size=4,
        crop=[48, 64],
        learning_rate=0.05,
        checkpoint_interval=4,
        draw_images=2,
        workers=0,
        device="cpu",
    )


def metrics_of(folder: Path) -> dict[str, float]:
    return {name: metric.value for name, metric in read_result(folder / "result.json").metrics.items()}


def test_the_command_from_backbone_to_result(nyu: Path, toy_file: Path, tmp_path: Path, run_main: RunMain) -> None:
    output = tmp_path / "out"
    places = ["--backbone", toy_file, "--data", nyu, "--output", output, "--device", "cpu", "--workers", 0]
    short = ["--iterations", 60, "--batch-size", 4, "--crop", 48, 64, "--learning-rate", 0.05, "--draw-images", 2]
    assert "rmse" in run_main(main, ["depth", *places, *short]).output()
    result = read_result(output / "result.json")
    assert result.protocol.name == "depth-dinov3"
    for column in BENCHMARKS["depth"].columns:
        metric = result.metrics[column.metric]
        assert (metric.unit, metric.higher_is_better) == (column.unit, column.higher_is_better), column
    assert f"{result.metrics['rmse'].value:.3f}" in render_tables(build_tables(tmp_path))["tables.md"]
    # Near is bright: the error is far below the difference of the two depths, which a constant cannot get to.
    assert result.metrics["rmse"].value < 1.0
    drawn = [path for name, path in result.artefacts.items() if name.startswith("prediction on ")]
    assert len(drawn) == 2
    assert Image.open(output / drawn[0]).size == (3 * WIDTH, HEIGHT)
    assert names_of_items(result, output, list(result.metrics)) == tuple(
        f"room_test/rgb_{number:05d}.jpg" for number in range(3)
    )
    assert read_items(dataclasses.replace(result, artefacts={}), output) is None


def test_an_interrupted_run_continues_to_the_same_result(
    config: DepthConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(config, output=tmp_path / "whole")
    evaluate(whole)
    original = training.train_step

    def step_or_die(*given: Any) -> Any:
        if given[4] == 9:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patched:
        patched.setattr(training, "train_step", step_or_die)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    assert evaluate(config) == read_result(config.output / "result.json")
    assert metrics_of(config.output) == metrics_of(whole.output)
    heads = [torch.load(folder / "head.pth", weights_only=True)["head"] for folder in (config.output, whole.output)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_crops_and_images_are_padded_to_whole_patches(config: DepthConfig, tmp_path: Path) -> None:
    """As a ViT/14 needs it, whose 420 x 546 pixels are squeezed onto the crop of 416 x 544."""
    backbone = write_toy_backbone(tmp_path, PATCHES_OF_14)
    result = evaluate(dataclasses.replace(config, backbone=backbone, precision="bfloat16"))
    assert 0 < result.metrics["rmse"].value < 3
    assert result.protocol.deviations["precision"] == ["float32", "bfloat16"]


def test_progress_of_other_inputs_or_damaged_progress_is_refused(config: DepthConfig) -> None:
    config.output.mkdir()
    for content, message in (({"inputs": "other"}, "of an unfinished run with other inputs"), ([1], "other inputs")):
        torch.save(content, config.output / "head.pth")
        with pytest.raises(ValueError, match=message):
            evaluate(config)


def test_two_processes_give_what_one_gives(config: DepthConfig, tmp_path: Path) -> None:
    alone = evaluate(config)
    two = dataclasses.replace(config, output=tmp_path / "two")
    evaluate_in_two("eval.depth.task", two, tmp_path / "processes")
    assert read_result(two.output / "result.json").metrics == alone.metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3}, "batch_size=3 must be even"),
        ({"crop": [48]}, "must be a height and a width"),
        ({"learning_rate": 0.0}, "must be positive"),
        ({"iterations": 0}, "must be at least 1"),
        ({"seed": 2**32}, "must be at most"),
    ],
)
def test_wrong_options_are_refused(config: DepthConfig, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **options)


def test_a_crop_that_is_larger_than_the_images_is_refused_before_anything_runs(config: DepthConfig) -> None:
    with pytest.raises(ValueError, match=r"crop=\[416, 544\]: images of 60 x 80 have 54 x 71 pixels .*give a smaller --crop"):
        evaluate(dataclasses.replace(config, crop=[416, 544]))
    assert not config.output.exists()


def train_on(truth_B1HW: Tensor, folder: Path, **options: Any) -> LinearHead:
    """A head after six updates on one batch of random features, with a record of the progress after each three."""
    options = {"iterations": 6, "batch_size": 4, "checkpoint_interval": 3, **options}
    config = DepthConfig(backbone=folder, data=folder, output=folder, **options)
    rules = rules_of(config)
    head = make_head(8, rules, seed=0)
    maps = {"last": [torch.randn(4, 8, 3, 4, generator=torch.Generator().manual_seed(0))]}
    training.train_head(head, lambda first: repeat((maps, truth_B1HW), 6 - first), config, rules, folder / "head.pth", "")
    return head


def test_two_crops_without_measured_depth_change_nothing_and_stop_nothing(tmp_path: Path) -> None:
    truth_B1HW = torch.full((4, 1, 12, 16), 2.0)
    truth_B1HW[2:] = 0
    assert bool(batch_loss(torch.ones(4, 5, 3, 4), truth_B1HW, True, PUBLISHED).isnan())
    assert all(bool(weights.isfinite().all()) for weights in train_on(truth_B1HW, tmp_path).parameters())
    assert torch.load(tmp_path / "head.pth", weights_only=True)["updates"] == 6


def test_weights_without_value_are_an_error_at_once(tmp_path: Path) -> None:
    """And never recorded as progress."""
    truth_B1HW = torch.full((4, 1, 12, 16), 2.0)
    truth_B1HW[2:] = 0
    truth_B1HW[2, 0, 5, 5] = 2
    with pytest.raises(
        ValueError, match=r"gradient's norm is nan in update 1; reasons may be two crops with a single measured"
    ):
        train_on(truth_B1HW, tmp_path)
    with pytest.raises(ValueError, match=r"gradient's norm is .* in update [23]; .*or a learning_rate that is too large"):
        train_on(torch.full((4, 1, 12, 16), 2.0), tmp_path, learning_rate=1e30)
    assert not (tmp_path / "head.pth").exists()


def test_defaults_are_the_published_protocol_and_everything_else_is_a_deviation(config: DepthConfig, toy_spec: ViTSpec) -> None:
    default = DepthConfig(backbone=config.backbone, data=config.data, output=config.output)
    assert rules_of(default) == PUBLISHED
    assert protocol_of(default, toy_spec).deviations == {}
    changed = {"iterations", "warmup_iterations", "loss_warmup_iterations", "learning_rate", "batch_size", "crop"}
    assert set(protocol_of(config, toy_spec).deviations) == changed
    assert (rules_of(config).warmup_iterations, rules_of(config).loss_warmup_iterations) == (4, 0)


def test_draws_stay_within_the_protocol_and_depend_on_their_generator_only() -> None:
    drawn = [draw_changes(PUBLISHED, 480, 640, np.random.default_rng(seed)) for seed in range(200)]
    assert drawn[7] == draw_changes(PUBLISHED, 480, 640, np.random.default_rng(7))
    turned = [one.degrees for one in drawn if one.degrees is not None]
    recoloured = [one.recolouring for one in drawn if one.recolouring is not None]
    assert 70 < len(turned) < 130
    assert 70 < len(recoloured) < 130
    assert 70 < sum(one.flip for one in drawn) < 130
    assert max(map(abs, turned)) <= 2.5
    assert {one.top for one in drawn} == set(range(12))  # 427 rows less 416
    assert max(one.left for one in drawn) == 21
    assert all(0.9 <= one.gamma <= 1.1 and 0.75 <= one.brightness <= 1.25 for one in recoloured)


def test_how_long_the_training_takes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "ESTIMATE_AFTER_S", 0)
    with caplog.at_level("INFO", logger="eval.progress"):
        train_on(torch.full((4, 1, 12, 16), 2.0), tmp_path)
    assert "depth head: 6 updates take about" in caplog.text
