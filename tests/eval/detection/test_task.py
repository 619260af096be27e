"""The whole task on a few drawn images, and the user's mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from eval.detection.config import DetectionConfig
from eval.detection.task import evaluate, main
from eval.openmmlab import launch
from eval.result import ResultError, read_result
from tests.processes import evaluate_in_processes, kill_when, start_evaluation

ITERATIONS = 4
CHANNELS = 16
# Mask R-CNN with thin layers: the path is the same and takes a tenth of the time.
THIN = [
    f"model.neck.out_channels={CHANNELS}",
    f"model.rpn_head.in_channels={CHANNELS}",
    f"model.rpn_head.feat_channels={CHANNELS}",
    f"model.roi_head.bbox_roi_extractor.out_channels={CHANNELS}",
    f"model.roi_head.mask_roi_extractor.out_channels={CHANNELS}",
    f"model.roi_head.bbox_head.in_channels={CHANNELS}",
    f"model.roi_head.bbox_head.fc_out_channels={CHANNELS}",
    f"model.roi_head.mask_head.in_channels={CHANNELS}",
    f"model.roi_head.mask_head.conv_out_channels={CHANNELS}",
    "model.test_cfg.rcnn.score_thr=0.0",
]

# Of one process's images only, where there is no SyncBN.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Nothing random is left in computing, where every process draws numbers of its own.
SETTLED = [
    *THIN,
    "model.backbone.drop_path_rate=0",
    "model.train_cfg.rpn.sampler.num=100000",
    "model.train_cfg.rcnn.sampler.num=100000",
]


def options(toy_file: Path, coco: Path, output: Path, **more: Any) -> DetectionConfig:
    values: dict[str, Any] = {
        "device": "cpu",
        "workers": 0,
        "batch_size": 2,
        "device_batch_size": 1,
        "iterations": ITERATIONS,
        "checkpoint_interval": 2,
        "short_side": 64,
        "override": THIN,
    }
    return DetectionConfig(backbone=toy_file, data=coco, output=output, **{**values, **more})


@HOOKS.register_module()
class _KillHook(Hook):
    """Stops training as a kill would: between two iterations, without any farewell."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(toy_file: Path, coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "detection"
    evaluate(options(toy_file, coco, output, name="toy"))
    return output


def _weights(output: Path) -> dict[str, torch.Tensor]:
    path = output / read_result(output / "result.json").artefacts["checkpoint"]
    return torch.load(path, weights_only=True)["state_dict"]


def _training_log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "training" / "training.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_result_is_complete(finished: Path) -> None:
    result = read_result(finished / "result.json")
    assert list(result.metrics) == ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "segm_mAP", "segm_mAP_50", "segm_mAP_75"]
    assert all(0 <= metric.value <= 100 for metric in result.metrics.values())
    assert set(result.breakdown) == {"person", "dog"}
    assert all(set(figures) == {"bbox_mAP", "segm_mAP"} for figures in result.breakdown.values())
    drawn = {name: path for name, path in result.artefacts.items() if name.startswith("prediction on")}
    assert sorted(drawn.values()) == ["predictions/000.png", "predictions/001.png"]
    assert result.artefacts["training_curves"] == "training/curves.png"
    assert result.coverage == "subset"
    assert not result.is_benchmark
    assert result.protocol.deviations["test_scale"] == [[1333, 800], [107, 64]]
    assert result.backbone.name == "toy"
    assert result.wall_time_s > 0
    assert result.peak_memory_bytes > 0
    for path in result.artefacts.values():
        assert (finished / path).is_file()
    lines = (finished / result.artefacts["training_log"]).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["iteration"] == ITERATIONS


def test_training_moves_the_backbone_and_keeps_only_the_last_checkpoint(finished: Path, toy_file: Path) -> None:
    from backbones.file import read_backbone_file

    before, after = read_backbone_file(toy_file).state_dict, _weights(finished)
    assert not torch.equal(before["blocks.0.attn.qkv.weight"], after["backbone.network.blocks.0.attn.qkv.weight"])
    assert [path.name for path in (finished / "training").glob("*.pth")] == [f"iter_{ITERATIONS}.pth"]


def test_an_interrupted_run_continues_exactly(
    finished: Path, toy_file: Path, coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = launch._prepared

    def killed_at_3(*args: Any, **kwargs: Any) -> Any:
        config = prepared(*args, **kwargs)
        config.custom_hooks.append({"type": "_KillHook", "iteration": 3})
        return config

    with monkeypatch.context() as patch:
        patch.setattr(launch, "_prepared", killed_at_3)
        with pytest.raises(KeyboardInterrupt):
            evaluate(options(toy_file, coco, tmp_path / "killed"))
    assert (tmp_path / "killed" / "training" / "iter_2.pth").exists()
    evaluate(options(toy_file, coco, tmp_path / "killed"))
    wanted = _weights(finished)
    for name, value in _weights(tmp_path / "killed").items():
        assert torch.equal(value, wanted[name]), name


def test_a_killed_process_continues_to_the_same_figures(finished: Path, toy_file: Path, coco: Path, tmp_path: Path) -> None:
    """Whoever loads the images: the uninterrupted run had no workers, this one has two."""
    given = options(toy_file, coco, tmp_path / "killed", workers=2)
    process = start_evaluation("eval.detection.task", given, tmp_path / "process")
    kill_when(process, tmp_path / "killed" / "training" / "iter_2.pth")
    assert not (tmp_path / "killed" / "result.json").exists()
    result = evaluate(given)
    wanted = _weights(finished)
    for name, value in _weights(tmp_path / "killed").items():
        assert torch.equal(value, wanted[name]), name
    assert result.metrics == read_result(finished / "result.json").metrics


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(toy_file: Path, coco: Path, tmp_path: Path) -> None:
    """One image each, against one process with one image at a time: batch statistics are then of the same images."""
    splits = {"batch_size": 2, "device_batch_size": 1, "override": SETTLED}
    evaluate(options(toy_file, coco, tmp_path / "one", **splits))
    given = options(toy_file, coco, tmp_path / "two", **splits)
    evaluate_in_processes("eval.detection.task", given, tmp_path / "processes", world_size=2)
    one, two = (_training_log(tmp_path / name) for name in ("one", "two"))
    assert [line["iteration"] for line in one] == list(range(1, ITERATIONS + 1))
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    wanted = _weights(tmp_path / "one")
    for name, value in _weights(tmp_path / "two").items():
        if not name.endswith(STATISTICS):
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=2e-5, msg=name)


def test_a_finished_task_is_not_run_again(finished: Path, toy_file: Path, coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("ran again")

    monkeypatch.setattr("eval.openmmlab.finetune.run", fail)
    again = evaluate(options(toy_file, coco, finished, name="toy"))
    assert again.inputs_sha256 == read_result(finished / "result.json").inputs_sha256
    with pytest.raises(ResultError, match="other inputs"):
        evaluate(options(toy_file, coco, finished, seed=1))


def test_a_run_killed_after_training_is_only_tested(
    finished: Path, toy_file: Path, coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr("eval.openmmlab.runner.FineTuningRunner.train", fail)
    before = (finished / "result.json").read_text(encoding="utf-8")
    (finished / "result.json").unlink()
    again = evaluate(options(toy_file, coco, finished, name="toy"))
    assert {name: metric["value"] for name, metric in json.loads(before)["metrics"].items()} == {
        name: metric.value for name, metric in again.metrics.items()
    }


def test_a_damaged_image_is_named(toy_file: Path, tmp_path: Path, drawing: Any) -> None:
    coco = drawing(tmp_path / "coco", {"train2017": 2, "val2017": 1})
    damaged = coco / "train2017" / "000000000001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"train2017/000000000001\.jpg: .*copy it again"):
        evaluate(options(toy_file, coco, tmp_path / "out"))


def _arguments(backbone: Path, data: Path, output: Path) -> list[str]:
    return ["--backbone", str(backbone), "--data", str(data), "--output", str(output), "--device", "cpu"]


def test_mistakes_are_one_line(toy_file: Path, coco: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_text("<html>", encoding="utf-8")
    blocked = tmp_path / "file"
    blocked.touch()
    good = _arguments(toy_file, coco, tmp_path / "out")
    for arguments, said in (
        (_arguments(toy_file, tmp_path / "absent", tmp_path / "out"), "no such folder"),
        (_arguments(foreign, coco, tmp_path / "out"), "not a backbone file"),
        (_arguments(tmp_path / "absent.safetensors", coco, tmp_path / "out"), "no such file"),
        ([*good, "--epoch_count", "3"], "--epoch_count"),
        ([*good, "--iterations", "0"], "iterations=0 must be at least 1"),
        ([*good, "--taps", "[0,1]"], "takes 4 maps"),
        ([*good, "--precision", "float16"], "needs a GPU"),
        (_arguments(toy_file, coco, blocked / "out"), str(blocked)),
    ):
        with pytest.raises((ValueError, OSError)) as caught:
            main(arguments)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
