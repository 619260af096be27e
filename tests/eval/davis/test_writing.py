import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.davis import writing
from eval.davis.config import DavisConfig
from eval.davis.data import VideoSequence
from eval.davis.masks import Mask
from eval.davis.propagation import PropagationConfig, propagate
from eval.davis.task import evaluate
from eval.result import read_result
from tests.eval.davis.conftest import SEQUENCES, draw_sequence
from tests.eval.davis.test_propagation import spoil_inside

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

    def write_until_full(path: Path, mask: Mask) -> None:
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
    assert not list(output.glob(".*"))
    propagate(PropagationConfig(**{**options, "output": tmp_path / "whole"}))
    assert len(list((output / "long").iterdir())) == 400
    assert contents(output) == contents(tmp_path / "whole")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sequence(name: str, frames: int) -> VideoSequence:
    paths = tuple(Path(f"{index:05d}.jpg") for index in range(frames))
    return VideoSequence(name=name, frames=paths, masks=paths[:1], one_object=False, size=(4, 4))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 9))
def test_every_sequence_has_one_owner_and_the_loads_are_close(lengths: list[int], world_size: int) -> None:
    sequences = [sequence(f"s{index}", length) for index, length in enumerate(lengths)]
    shares = [writing.share(sequences, rank, world_size) for rank in range(world_size)]
    assert sorted(item.name for share in shares for item in share) == sorted(item.name for item in sequences)
    loads = [sum(len(item.frames) for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


def run_two(options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "eval", "davis", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_a_mistake_that_one_process_meets_is_one_line_of_each(
    davis: Path, backbone_files: dict[str, Path], tmp_path: Path
) -> None:
    """The other one ended with a traceback of gloo's."""
    spoil_inside(davis)
    options = {"backbone": backbone_files["vit"], "data": davis, "output": tmp_path / "out", "short_side": 64, "device": "cpu"}
    finished = run_two(options)
    assert finished.returncode != 0
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    # Whichever process ends first, the launcher may stop the other before it has said anything.
    assert any("boat/00002.jpg: not a JPEG" in line for line in errors)
    assert "RuntimeError" not in finished.stderr


def test_two_processes_give_what_one_gives(davis: Path, backbone_files: dict[str, Path], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"backbone": backbone_files["vit"], "data": davis, "short_side": 64, "device": "cpu", "jobs": 1}
    alone = evaluate(DavisConfig(output=one, **options))
    finished = run_two(options | {"output": two})
    assert finished.returncode == 0, finished.stderr
    assert contents(one / "masks") == contents(two / "masks")
    assert {path.name for path in (two / "masks").iterdir()} >= set(SEQUENCES)
    together = read_result(two / "result.json")
    assert together.metrics == alone.metrics
    assert (alone.environment.world_size, together.environment.world_size) == (1, 2)
