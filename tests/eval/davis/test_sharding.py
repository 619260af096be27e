import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.davis.config import DavisConfig
from eval.davis.dataset import VideoSequence
from eval.davis.sharding import Shard
from eval.davis.task import evaluate
from eval.result import read_result
from tests.eval.davis.conftest import SEQUENCES
from tests.eval.davis.test_writing import REPOSITORY, contents


def sequence(name: str, frames: int) -> VideoSequence:
    paths = tuple(Path(f"{index:05d}.jpg") for index in range(frames))
    return VideoSequence(name=name, frames=paths, masks=paths[:1], one_object=False, size=(4, 4))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 9))
def test_every_sequence_has_one_owner_and_the_loads_are_close(lengths: list[int], world_size: int) -> None:
    sequences = [sequence(f"s{index}", length) for index, length in enumerate(lengths)]
    shares = [Shard(rank=rank, world_size=world_size).share(sequences) for rank in range(world_size)]
    assert sorted(item.name for share in shares for item in share) == sorted(item.name for item in sequences)
    loads = [sum(len(item.frames) for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="'abacus' is not a device"):
        Shard().device("abacus")
    with pytest.raises(ValueError, match="usable GPUs"):
        Shard().device("cuda:99")


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
    path = davis / "JPEGImages/480p/boat/00002.jpg"
    path.write_bytes(path.read_bytes()[:900])
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
