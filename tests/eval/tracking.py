"""What holds of the tasks that follow VIP's parts and JHMDB's joints through drawn videos; a task's tests subclass `Tracking`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from eval.__main__ import main
from eval.findings import Finding
from eval.propagation import writing
from eval.result import Result, read_result
from tables.make import build_tables, render_tables
from tests.conftest import RunMain
from tests.eval.conftest import PATCHES_OF_14, names_of_items
from tests.toy import write_toy_backbone

FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task on two videos of `FRAMES` frames."""

    name: str
    module: ModuleType
    examine: Callable[[Path], list[Finding]]
    follow: str  # the function of the module that follows the labels of one video
    metrics: tuple[str, ...]
    videos: tuple[str, str]
    stretched: dict[str, Any]  # what deviates where sizes are rounded up


def check_command(task: Task, config: Any, folder: Path, run_main: RunMain, *options: object) -> Result:
    """The command makes a result that the tables show, and that is not made again."""
    places = ["--backbone", config.backbone, "--data", config.data, "--output", config.output, "--device", "cpu"]
    assert task.metrics[0] in run_main(main, [task.name, *places, "--overlays", "true", *options]).output()
    result = read_result(config.output / "result.json")
    assert (result.protocol.name, result.protocol.deviations, result.coverage) == (f"{task.name}-cropmae", {}, "subset")
    assert names_of_items(result, config.output, task.metrics) == task.videos
    assert f"{result.metrics[task.metrics[0]].value:.1f}" in render_tables(build_tables(folder))["tables.md"]
    assert task.module.evaluate(replace(config, overlays=True)) == result
    return result


def check_refusal(task: Task, config: Any, message: str) -> None:
    """The data are refused in one line before anything runs, and by the data check."""
    with pytest.raises(ValueError, match=message) as caught:
        task.module.evaluate(config)
    assert "\n" not in str(caught.value)
    assert not config.output.exists()
    assert any(finding.is_problem for finding in task.examine(config.data))


class Tracking:
    """Needs the fixture `config`."""

    task: ClassVar[Task]

    def test_an_interrupted_run_continues_to_the_same_result(
        self, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = self.task.module.evaluate(replace(config, output=tmp_path / "whole"))
        original = getattr(self.task.module, self.task.follow)
        begun: list[str] = []

        def follow_or_die(video: Any, *given: Any) -> Any:
            if begun:
                raise KeyboardInterrupt
            begun.append(video.name)
            return original(video, *given)

        with monkeypatch.context() as patched:
            patched.setattr(self.task.module, self.task.follow, follow_or_die)
            with pytest.raises(KeyboardInterrupt):
                self.task.module.evaluate(config)
        with pytest.raises(ValueError, match=r"of other inputs.*; choose another --output or remove"):
            self.task.module.evaluate(replace(config, protocol="crw"))
        kept = {path: path.stat().st_mtime_ns for path in config.output.rglob("*.*") if path.suffix in (".png", ".npz")}
        assert kept
        assert self.task.module.evaluate(config).metrics == whole.metrics
        assert {path: path.stat().st_mtime_ns for path in kept} == kept

    def test_patches_of_14_pixels_need_sizes_that_are_rounded_up(self, config: Any, tmp_path: Path) -> None:
        config = replace(config, backbone=write_toy_backbone(tmp_path, PATCHES_OF_14))
        with pytest.raises(ValueError, match=r"; --round-up true takes the next sizes that fit$"):
            self.task.module.evaluate(config)
        result = self.task.module.evaluate(replace(config, round_up=True, block=0))
        assert result.protocol.deviations == {"block": [None, 0], **self.task.stretched}

    def test_overlays_can_be_had_later(
        self, config: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The time of the result was that of the overlays alone."""
        monkeypatch.setattr(writing, "_TELL_AFTER_S", 0)
        caplog.set_level("INFO")
        result = self.task.module.evaluate(config)
        assert f"{self.task.videos[0]}: 2 of {FRAMES} frames" in caplog.messages
        later = self.task.module.evaluate(replace(config, overlays=True))
        assert later == replace(result, artefacts={**result.artefacts, "overlays": "overlays"})
        assert len(list((config.output / "overlays" / self.task.videos[0]).iterdir())) == FRAMES
