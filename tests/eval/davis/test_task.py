import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones.build import build_backbone
from backbones.file import write_backbone_file
from eval.__main__ import main
from eval.davis.config import DavisConfig
from eval.davis.items import read_items
from eval.davis.masks import overlay, read_mask
from eval.davis.scores import METRICS, score_sequences
from eval.davis.task import evaluate
from eval.drawing import read_image
from eval.result import ResultError, read_result
from tests.eval.davis.conftest import SEQUENCES, SOURCE, SPECS
from tests.layouts import REGISTERS

Run = Callable[..., tuple[int, str, str]]


def test_the_command_from_backbone_to_result(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    output = tmp_path / "out"
    arguments = (
        "--backbone",
        backbone_files["vit"],
        "--data",
        davis,
        "--output",
        output,
        "--short_side",
        64,
        "--overlays",
        "true",
    )
    status, printed, errors = run(main, "davis", *arguments, "--jobs", 1, "--name", "tiny", "--device", "cpu")
    assert (status, errors) == (0, "")
    assert "J&F-Mean" in printed
    result = read_result(output / "result.json")
    assert tuple(result.metrics) == METRICS
    scores = score_sequences(SEQUENCES, davis / "Annotations/480p", output / "masks")
    for name, metric in result.metrics.items():
        assert metric.value == pytest.approx(100 * scores.overall[name], abs=1e-9)
        assert (metric.unit, metric.higher_is_better) == ("percent", "Decay" not in name)
    assert set(result.breakdown) == {f"{name}_{number}" for name in SEQUENCES for number in (1, 2)}
    assert result.backbone.name == "tiny"
    assert result.protocol.deviations == {"short_side": [480, 64]}
    assert result.protocol.settings["stride"] == 8
    assert not result.is_benchmark
    assert (result.datasets["test"].num_items, result.coverage) == (3, "subset")
    for path in result.artefacts.values():
        assert (output / path).exists()
    frame, mask = davis / "JPEGImages/480p/boat/00001.jpg", output / "masks/boat/00001.png"
    assert read_mask(mask).any()
    assert (read_image(output / "overlays/boat/00001.png") == overlay(frame, mask)).all()
    assert json.loads((output / "config.json").read_text())["short_side"] == 64
    items = read_items(result, output)
    assert items is not None
    assert items[0] == SEQUENCES
    # Every sequence once gives the metrics themselves; the first one alone, those of its objects.
    metrics = items[1](np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    first = [result.breakdown[f"{SEQUENCES[0]}_{number}"]["J&F-Mean"] for number in (1, 2)]
    assert metrics["J&F-Mean"] == pytest.approx([result.metrics["J&F-Mean"].value, np.mean(first)])


def test_a_finished_task_is_not_run_again(
    davis: Path, backbone_files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = DavisConfig(
        backbone=backbone_files["vit"], data=davis, output=tmp_path / "out", short_side=64, device="cpu", jobs=1
    )
    first = evaluate(config)
    written = (tmp_path / "out/result.json").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert evaluate(config) == first
    assert "finished with the same inputs" in caplog.text
    assert (tmp_path / "out/result.json").stat().st_mtime_ns == written
    with pytest.raises(ResultError, match="made from other inputs"):
        evaluate(
            DavisConfig(backbone=backbone_files["resnet"], data=davis, output=tmp_path / "out", short_side=64, device="cpu")
        )


def test_overlays_can_be_had_later(davis: Path, backbone_files: dict[str, Path], tmp_path: Path) -> None:
    """A finished task once ignored the option; and overlays of other settings were kept."""
    output = tmp_path / "out"
    options: dict[str, Any] = {"backbone": backbone_files["vit"], "data": davis, "output": output, "short_side": 64}
    options |= {"device": "cpu", "jobs": 1, "sequences": "boat"}
    first = evaluate(DavisConfig(**options))
    assert "overlays" not in first.artefacts
    second = evaluate(DavisConfig(**options, overlays=True))
    assert second == replace(first, artefacts={**first.artefacts, "overlays": "overlays"})
    assert evaluate(DavisConfig(**options)) == second
    for path in (output / "result.json", output / "masks"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    evaluate(DavisConfig(**options, overlays=True, topk=1, n_last_frames=0))
    expected = overlay(davis / "JPEGImages/480p/boat/00004.jpg", output / "masks/boat/00004.png")
    assert (read_image(output / "overlays/boat/00004.png") == expected).all()


def test_all_objects_are_one_in_2016(davis: Path, backbone_files: dict[str, Path], tmp_path: Path) -> None:
    (davis / "ImageSets/2017").rename(davis / "ImageSets/2016")
    config = DavisConfig(
        backbone=backbone_files["vit"], data=davis, output=tmp_path / "out", short_side=64, year="2016", device="cpu", jobs=1
    )
    result = evaluate(config)
    assert set(result.breakdown) == {f"{name}_1" for name in SEQUENCES}
    assert result.datasets["test"].name == "DAVIS-2016"
    last = read_mask(tmp_path / "out/masks/boat/00004.png")
    assert np.unique(last).tolist() == [0, 1]
    scores = score_sequences(SEQUENCES, davis / "Annotations/480p", tmp_path / "out/masks", one_object=True)
    assert result.metrics["J&F-Mean"].value == pytest.approx(100 * scores.overall["J&F-Mean"], abs=1e-9)


def test_frames_that_do_not_fit_are_found_before_anything_runs(davis: Path, tmp_path: Path, run: Run) -> None:
    backbone = tmp_path / "patch14.safetensors"
    write_backbone_file(backbone, REGISTERS, SOURCE, build_backbone(REGISTERS).state_dict())
    arguments = ("--backbone", backbone, "--data", davis, "--output", tmp_path / "out", "--device", "cpu", "--jobs", 1)
    status, _, errors = run(main, "davis", *arguments)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "not a multiple of the patch size 14" in errors
    assert "--protocol fixed" in errors
    assert not (tmp_path / "out").exists()
    assert run(main, "davis", *arguments, "--protocol", "fixed", "--short-side", 64)[0] == 0


@pytest.mark.parametrize(
    ("family", "block", "stride", "features"),
    [
        ("vit_with_cls_and_norm", None, 16, "after the last of 2 blocks, after the final norm"),
        ("vit_with_cls_and_norm", 1, 16, "after block 1 of 2 (0-based), without the final norm"),
        ("vit", 0, 8, "after block 0 of 2 (0-based), without the final norm"),
        ("swin", None, 8, "after the last of 2 blocks, after the final norm"),
        ("swin", 0, 4, "after block 0 of 2 (0-based), without the final norm"),
        ("resnet", None, 32, "after the last of 4 blocks"),
        ("resnet", 2, 16, "after block 2 of 4 (0-based), without the final norm"),
    ],
)
def test_every_backbone(
    family: str, block: int | None, stride: int, features: str, davis: Path, backbone_files: dict[str, Path], tmp_path: Path
) -> None:
    config = DavisConfig(
        backbone=backbone_files[family],
        data=davis,
        output=tmp_path / "out",
        short_side=64,
        block=block,
        sequences="boat",
        device="cpu",
        jobs=1,
    )
    result = evaluate(config)
    assert result.protocol.settings["features"] == features
    assert result.protocol.settings["stride"] == stride
    assert result.backbone.spec["family"] == SPECS[family].family
    assert ("block" in result.protocol.deviations) == (block is not None)
    assert np.isfinite([metric.value for metric in result.metrics.values()]).all()


def test_mistakes_are_one_line(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    cases: dict[str, tuple[object, ...]] = {
        "no such file; make it with": ("--backbone", tmp_path / "none", "--data", davis),
        "should be a DAVIS folder": ("--backbone", backbone_files["vit"], "--data", tmp_path / "none"),
        "jobs=-1 must be at least 0": ("--backbone", backbone_files["vit"], "--data", davis, "--jobs", -1),
    }
    for message, arguments in cases.items():
        status, _, errors = run(main, "davis", *arguments, "--output", tmp_path / "out")
        assert (status, len(errors.splitlines())) == (2, 1), message
        assert message in errors
    (davis / "Annotations/480p/boat/00002.png").unlink()
    status, _, errors = run(main, "davis", "--backbone", backbone_files["vit"], "--data", davis, "--output", tmp_path / "out")
    assert status == 2
    assert "scoring needs a mask of every frame" in errors
    assert not (tmp_path / "out").exists()


def test_davis_needs_no_openmmlab() -> None:
    program = (
        "import sys\n"
        "for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg'): sys.modules[name] = None\n"
        "import eval.davis.task, eval.davis.scores, eval.davis.propagation"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[3], check=True, timeout=240)
