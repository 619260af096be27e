"""Whole runs: killed and continued, and the mistakes a user makes."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from backbones.convert import open_backbone
from backbones.spec import ViTSpec
from common.distributed import hold_folder
from pretrain.__main__ import main
from pretrain.config import parse_run
from pretrain.methods import METHODS
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import assert_equal, bare_run, logged, tiny_run, wait_for_steps, weights
from tests.processes import fork, run_as_command


@pytest.mark.parametrize("method", METHODS)
def test_a_run_makes_a_checkpoint_that_converts(image_folder: Path, tmp_path: Path, method: str) -> None:
    output = tmp_path / "run"
    config = parse_run(bare_run(image_folder, output, method, train__resume="never"))
    conversion = open_backbone(pretrain(config))
    assert conversion.source.format == "patchbench"
    assert isinstance(conversion.spec, ViTSpec)
    assert conversion.spec.class_token == conversion.spec.final_norm == ("selfpatch" not in method)
    assert conversion.source.epoch == config.train.epochs
    assert [line["step"] for line in logged(output)] == list(range(1, 7))
    assert any(output.glob("tensorboard/*"))
    assert parse_run([str(output / "config.yaml")]) == config, "the resolved config is a recipe"


def test_killed_and_continued_equals_uninterrupted(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stochastic depth, views, optimiser and centres all continue; the kill comes at whatever moment it comes."""

    def command(output: Path) -> list[str]:
        options = {"train__epochs": 14, "train__checkpoint_every": 1, "backbone__drop_path_rate": 0.3}
        return tiny_run(image_folder, output, **options)

    process = fork(tmp_path / "messages.log", run_as_command, main, command(tmp_path / "killed"))
    wait_for_steps(process, tmp_path / "killed", 2)
    time.sleep(random.uniform(0, 0.5))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the run ended before it could be killed"
    caplog.set_level("INFO")
    pretrain(parse_run(command(tmp_path / "killed")))
    assert any("continuing after step" in message for message in caplog.messages)
    pretrain(parse_run(command(tmp_path / "whole")))
    assert_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*.tmp.*")), "a killed writer's temporary file was left"


def test_only_the_same_run_is_continued(image_folder: Path, tmp_path: Path) -> None:
    """Other images mean another order of all batches; the folder as such may move."""
    moved, output = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(image_folder, moved)

    def run(folder: Path, **overrides: Any) -> bytes:
        return pretrain(parse_run(tiny_run(folder, output, **overrides))).read_bytes()

    checkpoint, resolved = run(image_folder), (output / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"optim\.lr was 0\.02, is 0\.01"):
        run(image_folder, optim__lr=0.01)
    assert (output / "config.yaml").read_text() == resolved
    assert run(moved, data__workers=1) == checkpoint
    next(moved.rglob("*.jpg")).unlink()
    with pytest.raises(ValueError, match="listing"):
        run(moved)


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_two_runs_at_once(image_folder: Path, tmp_path: Path, seeds: tuple[int, int]) -> None:
    """The second says who is there and touches nothing, be it the same run or another; the first one's death frees the folder."""
    output = tmp_path / "run"
    first, second = (
        tiny_run(image_folder, output, "dino", train__epochs=99, train__seed=seed, data__workers=1) for seed in seeds
    )
    process = fork(tmp_path / "messages.log", run_as_command, main, first)
    try:
        wait_for_steps(process, output, 2)
        half = output / ".checkpoint.1.tmp.pth"
        half.write_text("half a checkpoint")
        before = (output / "config.yaml").read_bytes()
        with pytest.raises(
            ValueError, match=rf"run is in use by process {process.pid} on .* since \d{{4}}-.*; wait for its end"
        ):
            pretrain(parse_run(second))
        assert half.exists()
        assert (output / "config.yaml").read_bytes() == before
    finally:
        process.kill()
        process.join()
    with hold_folder(output):
        pass


def test_a_start_removes_only_what_pretraining_left(image_folder: Path, tmp_path: Path) -> None:
    """An evaluation of the run may be writing its backbone file there."""
    own, others = ".checkpoint_step00000003.1.tmp.pth", ".backbone.1.tmp.safetensors"
    for name in (own, others):
        (tmp_path / name).write_text("half a file")
    pretrain(parse_run(tiny_run(image_folder, tmp_path, "dino")))
    assert {path.name for path in tmp_path.glob(".*.tmp.*")} == {others}


def test_a_damaged_log_heals(image_folder: Path, tmp_path: Path) -> None:
    """A power cut may leave zeros for lines."""
    options = tiny_run(image_folder, tmp_path, "dino")
    pretrain(parse_run([*options, "--train.checkpoint_every", "1"]))
    log = tmp_path / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + bytes(99) + b"\n\xff[]\n5\n" + b"".join(lines[1:4]) + lines[4][:9])
    (tmp_path / "checkpoint.pth").unlink()
    pretrain(
        parse_run([*options, "--train.resume", str(tmp_path / "checkpoint_step00000005.pth"), "--train.checkpoint_every", "1"])
    )
    assert [line["step"] for line in logged(tmp_path)] == [1, 2, 3, 4, 6]


def test_too_many_unreadable_images_end_the_run(
    image_folder: Path, tmp_path: Path, run_main: RunMain, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "images")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    finished = run_main(main, tiny_run(folder, tmp_path / "run", data__max_unreadable=0))
    assert finished.status == 2
    assert "cut.jpg" in finished.stderr.splitlines()[-1]
    caplog.clear()
    run_main(main, tiny_run(folder, tmp_path / "run2", data__max_unreadable=1)).output()
    assert any("skipping the unreadable image" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("overrides", "message"), [({"train__epochs": "many"}, "many"), ({"train__output": "/proc/nowhere"}, "/proc/nowhere")]
)
def test_mistakes_are_one_line(
    image_folder: Path, tmp_path: Path, run_main: RunMain, overrides: dict[str, Any], message: str
) -> None:
    finished = run_main(main, tiny_run(image_folder, tmp_path, **overrides))
    assert message in finished.mistake()
