"""The whole task on a few drawn pairs, and the user's mistakes."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from backbones.file import read_backbone_file
from eval.openmmlab import launch
from eval.result import ResultError, read_result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.task import evaluate, main
from tests.processes import evaluate_in_processes, kill_when, start_evaluation

ITERATIONS = 4
# Semantic FPN with thin layers: the path is the same and takes a fraction of the time.
THIN = ["model.neck.out_channels=8", "model.decode_head.in_channels=[8,8,8,8]", "model.decode_head.channels=8"]

# Of one process's images only, where there is no SyncBN.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Nothing random is left in computing, where every process draws numbers of its own.
SETTLED = [*THIN, "model.backbone.drop_path_rate=0", "model.decode_head.dropout_ratio=0"]


def options(toy_file: Path, data: Path, output: Path, **more: Any) -> SegmentationConfig:
    values: dict[str, Any] = {
        "device": "cpu",
        "workers": 0,
        "batch_size": 4,
        "device_batch_size": 2,
        "iterations": ITERATIONS,
        "checkpoint_interval": 2,
        "crop": 32,
        "train_short_side": 32,
        "test_short_side": 40,
        "override": THIN,
    }
    return SegmentationConfig(backbone=toy_file, data=data, output=output, **{**values, **more})


@HOOKS.register_module()
class _SegmentationKillHook(Hook):
    """Stops training as a kill would: between two iterations, without any farewell."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(toy_file: Path, ade: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "segmentation"
    evaluate(options(toy_file, ade, output, name="toy"))
    return output


def _weights(output: Path) -> dict[str, torch.Tensor]:
    path = output / read_result(output / "result.json").artefacts["checkpoint"]
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return weights


def _training_log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "training" / "training.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_result_is_complete(finished: Path) -> None:
    result = read_result(finished / "result.json")
    assert list(result.metrics) == ["mIoU", "aAcc", "mAcc"]
    assert all(0 <= metric.value <= 100 for metric in result.metrics.values())
    assert len(result.breakdown) == 150
    assert all(set(figures) == {"IoU", "Acc"} for figures in result.breakdown.values())
    drawn = {name: path for name, path in result.artefacts.items() if name.startswith("prediction on")}
    assert sorted(drawn.values()) == [f"predictions/00{number}.png" for number in range(3)]
    assert result.artefacts["training_curves"] == "training/curves.png"
    assert not math.isnan(result.breakdown["wall"]["IoU"])
    assert math.isnan(result.breakdown["sky"]["Acc"])  # labelled nowhere
    assert result.datasets["train"].num_items == 4
    assert result.datasets["test"].num_items == 3
    assert result.coverage == "subset"
    assert not result.is_benchmark
    assert result.backbone.name == "toy"
    assert result.wall_time_s > 0
    assert result.peak_memory_bytes > 0
    for path in result.artefacts.values():
        assert (finished / path).is_file()
    lines = (finished / result.artefacts["training_log"]).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["iteration"] == ITERATIONS


def test_every_labelled_pixel_is_counted_once(finished: Path, ade: Path) -> None:
    counts = json.loads((finished / "class_pixels.json").read_text(encoding="utf-8"))
    assert sum(labelled for _, _, labelled in counts.values()) == 3 * 50 * (70 - 4)
    assert sum(predicted for _, predicted, _ in counts.values()) == 3 * 50 * (70 - 4)
    assert {name for name, (_, _, labelled) in counts.items() if labelled} == {"wall", "door"}


def test_training_moves_the_backbone_and_keeps_only_the_last_checkpoint(finished: Path, toy_file: Path) -> None:
    before, after = read_backbone_file(toy_file).state_dict, _weights(finished)
    assert not torch.equal(before["blocks.0.attn.qkv.weight"], after["backbone.network.blocks.0.attn.qkv.weight"])
    assert [path.name for path in (finished / "training").glob("*.pth")] == [f"iter_{ITERATIONS}.pth"]


def test_an_interrupted_run_continues_exactly(
    finished: Path, toy_file: Path, ade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = launch._prepared

    def killed_at_3(*args: Any, **kwargs: Any) -> Any:
        config = prepared(*args, **kwargs)
        config.custom_hooks.append({"type": "_SegmentationKillHook", "iteration": 3})
        return config

    with monkeypatch.context() as patch:
        patch.setattr(launch, "_prepared", killed_at_3)
        with pytest.raises(KeyboardInterrupt):
            evaluate(options(toy_file, ade, tmp_path / "killed"))
    assert (tmp_path / "killed" / "training" / "iter_2.pth").exists()
    result = evaluate(options(toy_file, ade, tmp_path / "killed"))
    wanted = _weights(finished)
    for name, value in _weights(tmp_path / "killed").items():
        assert torch.equal(value, wanted[name]), name
    assert result.metrics == read_result(finished / "result.json").metrics


def test_a_killed_process_continues_to_the_same_figures(finished: Path, toy_file: Path, ade: Path, tmp_path: Path) -> None:
    """Whoever loads the images: the uninterrupted run had no workers, this one has two."""
    given = options(toy_file, ade, tmp_path / "killed", workers=2)
    process = start_evaluation("eval.segmentation.task", given, tmp_path / "process")
    kill_when(process, tmp_path / "killed" / "training" / "iter_2.pth")
    assert not (tmp_path / "killed" / "result.json").exists()
    result = evaluate(given)
    wanted = _weights(finished)
    for name, value in _weights(tmp_path / "killed").items():
        assert torch.equal(value, wanted[name]), name
    assert result.metrics == read_result(finished / "result.json").metrics


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(toy_file: Path, ade: Path, tmp_path: Path) -> None:
    """One image each, against one process with one image at a time: batch statistics are then of the same images."""
    splits = {"batch_size": 2, "device_batch_size": 1, "override": SETTLED}
    evaluate(options(toy_file, ade, tmp_path / "one", **splits))
    given = options(toy_file, ade, tmp_path / "two", **splits)
    evaluate_in_processes("eval.segmentation.task", given, tmp_path / "processes", world_size=2)
    one, two = (_training_log(tmp_path / name) for name in ("one", "two"))
    assert [line["iteration"] for line in one] == list(range(1, ITERATIONS + 1))
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    wanted = _weights(tmp_path / "one")
    for name, value in _weights(tmp_path / "two").items():
        if not name.endswith(STATISTICS):
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=2e-5, msg=name)


def test_a_finished_task_is_not_run_again(finished: Path, toy_file: Path, ade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("ran again")

    monkeypatch.setattr("eval.openmmlab.finetune.run", fail)
    assert evaluate(options(toy_file, ade, finished)).metrics == read_result(finished / "result.json").metrics
    with pytest.raises(ResultError, match="other inputs"):
        evaluate(options(toy_file, ade, finished, seed=1))


def _arguments(backbone: Path, data: Path, output: Path) -> list[str]:
    return ["--backbone", str(backbone), "--data", str(data), "--output", str(output), "--device", "cpu"]


def test_mistakes_are_one_line(toy_file: Path, ade: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_text("<html>", encoding="utf-8")
    blocked = tmp_path / "file"
    blocked.touch()
    good = _arguments(toy_file, ade, tmp_path / "out")
    for arguments, said in (
        (_arguments(toy_file, tmp_path / "absent", tmp_path / "out"), "no such folder"),
        (_arguments(foreign, ade, tmp_path / "out"), "not a backbone file"),
        (_arguments(tmp_path / "absent.safetensors", ade, tmp_path / "out"), "no such file"),
        ([*good, "--iteration_count", "3"], "--iteration_count"),
        ([*good, "--iterations", "0"], "iterations=0 must be at least 1"),
        ([*good, "--iterations", "3", "--warmup_iterations", "4"], "exceeds iterations=3"),
        ([*good, "--taps", "[0,1]"], "takes 4 maps"),
        ([*good, "--taps", "[0,1,2,11]"], "--taps"),
        ([*good, "--device_batch_size", "5"], "cannot be split"),
        ([*good, "--precision", "float16"], "needs a GPU"),
        ([*good, "--override+", "model.no_such_key=1"], "model.no_such_key=1"),
        (_arguments(toy_file, ade, blocked / "out"), str(blocked)),
    ):
        with pytest.raises((ValueError, OSError)) as caught:
            main(arguments)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_breaks_off_is_named(toy_file: Path, ade: Path, tmp_path: Path, workers: int) -> None:
    damaged = Path(shutil.copytree(ade, tmp_path / "ade"))
    path = sorted((damaged / "images" / "training").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"^{path}: the JPEG breaks off after \d+ bytes"):
        evaluate(options(toy_file, damaged, tmp_path / "out", workers=workers))


def test_the_task_says_nothing_while_it_is_imported() -> None:
    """mmseg prints on stdout when it is imported, where a command's own result belongs."""
    command = [sys.executable, "-c", "import eval.segmentation.task, eval.detection.task"]
    imported = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert imported.stdout == ""
