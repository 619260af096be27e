"""What holds of every fine-tuning task's whole course, on a few drawn images; a task's tests subclass `Course`.

A killed run continues to the same weights, several processes learn what one learns, a finished task is not run again.
"""

import gc
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.files import lock_folder
from eval.__main__ import main
from eval.openmmlab import finetune
from eval.result import Result, ResultError, read_result
from tests.architectures import ANY, backbone_of
from tests.processes import evaluate, evaluate_in_two, fork, kill_when
from tests.toy import write_toy_backbone

ITERATIONS = 4
OPTIONS: dict[str, Any] = {"device": "cpu", "workers": 0, "iterations": ITERATIONS, "checkpoint_interval": 2}
# Of one process's images only, where there is no SyncBN.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with toy data."""

    name: str  # such as `detection`
    options: Callable[..., Any]  # its config, from an output folder and further values
    settled: list[str]  # overrides that leave nothing random in computing, where every process draws numbers of its own

    @property
    def module(self) -> str:
        return f"eval.{self.name}.task"

    def evaluate(self, options: Any, hook: dict[str, Any] | None = None) -> Result:
        """Run the task, with one more hook."""
        module = importlib.import_module(self.module)

        def prepare(*arguments: Any) -> Any:
            prepared = module.prepare(*arguments)
            prepared.config.custom_hooks = [*prepared.config.get("custom_hooks", []), *([hook] if hook else [])]
            return prepared

        return finetune.evaluate(self.name, options, prepare, module.ARTEFACTS)


def trained_weights(output: Path) -> dict[str, torch.Tensor]:
    path = output / read_result(output / "result.json").artefacts["checkpoint"]
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return weights


def assert_same_weights(output: Path, wanted: Path) -> None:
    torch.testing.assert_close(trained_weights(output), trained_weights(wanted), rtol=0, atol=0)


def weights_of_one_update(task: Task, spec: BackboneSpec, folder: Path, **more: Any) -> dict[str, torch.Tensor]:
    """Finite weights of a whole run with one update and one test image."""
    lengths = {"batch_size": 2, "device_batch_size": 2, "iterations": 1, "max_val_images": 1, "draw_images": 0}
    given = task.options(folder / "out", backbone=write_toy_backbone(folder, spec), **lengths, **more)
    task.evaluate(given)
    weights = trained_weights(given.output)
    assert all(value.isfinite().all() for value in weights.values())
    return weights


def _training_log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "training" / "training.jsonl").read_text(encoding="utf-8").splitlines()]


def check_one_line(task: Task, mistakes: Sequence[tuple[Sequence[str], str]]) -> None:
    """Each command line is refused by one line that contains what is given beside its arguments."""
    for arguments, said in mistakes:
        with pytest.raises((ValueError, OSError)) as caught:
            main([task.name, *arguments])
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


class Course:
    """Needs the fixture `task`."""

    @pytest.fixture(scope="class")
    def finished(self, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The output folder of a run with the name `toy`."""
        output = tmp_path_factory.mktemp("finished") / task.name
        task.evaluate(task.options(output, name="toy"))
        return output

    def test_the_record_is_complete(self, task: Task, finished: Path) -> None:
        result = read_result(finished / "result.json")
        assert all(0 <= metric.value <= 100 for metric in result.metrics.values())
        assert result.artefacts["training_curves"] == "training/curves.png"
        assert result.coverage == "subset"
        for path in result.artefacts.values():
            assert (finished / path).is_file()
        lines = (finished / result.artefacts["training_log"]).read_text(encoding="utf-8").splitlines()
        assert json.loads(lines[-1])["iteration"] == ITERATIONS
        # The backbone moved, and only the last checkpoint is kept.
        before = read_backbone_file(task.options(finished).backbone).state_dict["blocks.0.attn.qkv.weight"]
        assert not torch.equal(before, trained_weights(finished)["backbone.network.blocks.0.attn.qkv.weight"])
        assert [path.name for path in (finished / "training").glob("*.pth")] == [f"iter_{ITERATIONS}.pth"]

    def test_a_killed_process_continues_to_the_same_metrics(
        self, task: Task, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever loads the images: the uninterrupted run had no workers, this one has two."""
        given = task.options(tmp_path / "killed", workers=2)
        process = fork(tmp_path / "messages.log", evaluate, task.module, given)
        kill_when(process, tmp_path / "killed" / "training" / "iter_2.pth")
        assert not (tmp_path / "killed" / "result.json").exists()
        result = task.evaluate(given)
        # Workers of loaders that are garbage hear of no end, and torch waits five seconds for each, in any later test.
        monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
        gc.collect()
        assert result.wall_time_s > json.loads((tmp_path / "killed" / ".parts.json").read_text(encoding="utf-8"))[0] > 0
        assert_same_weights(tmp_path / "killed", finished)
        assert result.metrics == read_result(finished / "result.json").metrics

    @pytest.mark.slow
    def test_two_processes_have_the_losses_of_one(self, task: Task, tmp_path: Path) -> None:
        """One image each, against one process with one image at a time: batch statistics are then of the same images."""
        splits = {"batch_size": 2, "device_batch_size": 1, "override": task.settled}
        task.evaluate(task.options(tmp_path / "one", **splits))
        given = task.options(tmp_path / "two", **splits)
        messages = evaluate_in_two(task.module, given, tmp_path / "processes")
        # Each drew its own images; all but the first's were missing, since mmengine's visualisers draw in the first process only.
        assert "missing" not in messages
        drawn = [{path.name for path in (tmp_path / name / "predictions").iterdir()} for name in ("one", "two")]
        assert drawn[0] == drawn[1]
        assert len(drawn[0]) == read_result(tmp_path / "two/result.json").datasets["test"].num_items + 1  # and the list
        one, two = (_training_log(tmp_path / name) for name in ("one", "two"))
        assert [line["iteration"] for line in one] == list(range(1, ITERATIONS + 1))
        for alone, together in zip(one, two, strict=True):
            assert together == pytest.approx(alone, rel=1e-4)
        wanted = trained_weights(tmp_path / "one")
        for name, value in trained_weights(tmp_path / "two").items():
            if not name.endswith(STATISTICS):
                torch.testing.assert_close(value, wanted[name], rtol=0, atol=2e-5, msg=name)

    def test_what_is_finished_is_not_run_again(self, task: Task, finished: Path) -> None:
        result, log = read_result(finished / "result.json"), _training_log(finished)
        before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
        assert task.evaluate(task.options(finished, name="toy")) == result
        assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
        with pytest.raises(ResultError, match="other inputs"):
            task.evaluate(task.options(finished, seed=1))
        other = finished.with_name("other")
        with lock_folder(other), pytest.raises(ValueError, match=rf"{other} is in use by process \d+ on .* since"):
            task.evaluate(task.options(other))
        # A run that was killed after training is only tested.
        (finished / "result.json").unlink()
        assert task.evaluate(task.options(finished, name="toy")).metrics == result.metrics
        assert _training_log(finished) == log

    @pytest.mark.parametrize("name", ANY)
    def test_any_backbone(self, task: Task, name: str, tmp_path: Path) -> None:
        lengths = {"batch_size": 2, "device_batch_size": 2, "iterations": 1, "max_val_images": 1, "draw_images": 0}
        result = task.evaluate(task.options(tmp_path / "out", backbone=backbone_of(name, tmp_path), **lengths))
        deviations = result.protocol.deviations
        assert name in deviations["backbone"][1]
        assert ("strides" in deviations) == ("patch14" in name or "blocks" in name)

    def test_mistakes_are_one_line(self, task: Task, tmp_path: Path) -> None:
        given = task.options(tmp_path / "out")
        foreign, blocked = tmp_path / "foreign.safetensors", tmp_path / "file"
        good = arguments(given.backbone, given.data, given.output)
        foreign.write_text("<html>", encoding="utf-8")
        blocked.touch()
        check_one_line(
            task,
            [
                (arguments(given.backbone, tmp_path / "absent", given.output), "no such folder"),
                (arguments(foreign, given.data, given.output), "not a backbone file"),
                (arguments(tmp_path / "absent.safetensors", given.data, given.output), "no such file"),
                (arguments(given.backbone, given.data, blocked / "out"), str(blocked)),
                ([*good, "--epoch_count", "3"], "--epoch_count"),
                ([*good, "--iterations", "0"], "iterations=0 must be at least 1"),
                ([*good, "--taps", "0", "1"], "takes 4 maps"),
                ([*good, "--taps", "[0,1,2,11]"], "--taps"),
                ([*good, "--precision", "float16"], "needs a GPU"),
                ([*good, "--device_batch_size", "5"], "cannot be split"),
                ([*good, "--override", "model.no_such_key=1"], "model.no_such_key=1"),
            ],
        )
        assert not given.output.exists()


def arguments(backbone: Path, data: Path, output: Path) -> list[str]:
    return ["--backbone", str(backbone), "--data", str(data), "--output", str(output), "--device", "cpu"]
