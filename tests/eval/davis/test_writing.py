import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.davis import writing
from eval.davis.propagation import PropagationConfig, propagate
from tests.eval.davis.conftest import SEQUENCES, draw_sequence

REPOSITORY = Path(__file__).resolve().parents[3]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def config(davis: Path, backbone: Path, output: Path) -> PropagationConfig:
    return PropagationConfig(davis=davis, backbone=backbone, output=output, short_side=64, device="cpu")


def test_finished_sequences_are_kept_and_the_interrupted_one_begins_again(
    davis: Path, backbone_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = propagate(config(davis, backbone_files["vit"], tmp_path / "whole"))
    calls: list[str] = []
    disk_is_full = True
    write_mask = writing.write_mask

    def write_until_full(path: Path, mask: writing.Mask) -> None:
        calls.append(path.name)
        if disk_is_full and len(calls) >= 8:
            raise OSError(28, "No space left on device", str(path))
        write_mask(path, mask)

    monkeypatch.setattr(writing, "write_mask", write_until_full)
    output = tmp_path / "interrupted"
    with pytest.raises(OSError, match="No space left"):
        propagate(config(davis, backbone_files["vit"], output))
    finished = {path.name for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert finished == {SEQUENCES[0]}
    calls.clear()
    disk_is_full = False
    propagate(config(davis, backbone_files["vit"], output))
    assert len(calls) == sum(len(list((output / name).iterdir())) for name in SEQUENCES[1:])
    assert contents(output) == contents(whole)


def test_a_killed_run_continues(davis: Path, backbone_files: dict[str, Path], tmp_path: Path) -> None:
    draw_sequence(davis, "long", 9, frames=400)
    (davis / "ImageSets/2017/val.txt").write_text("boat\nlong\n")
    output = tmp_path / "masks"
    options = {"backbone": backbone_files["vit"], "davis": davis, "output": output, "short_side": 64, "device": "cpu"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "eval.davis.propagation", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(output.glob(".long.partial/*.png")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "long").exists()
    kept = (output / "boat/00001.png").stat().st_mtime_ns
    propagate(PropagationConfig(**options))
    assert (output / "boat/00001.png").stat().st_mtime_ns == kept
    assert len(list((output / "long").iterdir())) == 400
    assert not list(output.glob(".*"))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
