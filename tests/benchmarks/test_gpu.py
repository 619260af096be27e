"""`python -m benchmarks.gpu`: its parts on the CPU, what it writes when, and what becomes of parts that end badly."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_checks
from benchmarks.gpu import PARTS, chosen, main
from benchmarks.gpu_run import GPUConfig
from benchmarks.gpu_speed import judged
from eval.tasks import TASKS
from pretrain.methods import METHODS
from tests.conftest import REPOSITORY


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {outcome["part"]: outcome for outcome in json.loads((folder / "results.json").read_text())["parts"]}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def has_ended(group: int) -> bool:
    """Whether no process of a group is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return False
    return True


def test_every_task_and_method_has_its_parts() -> None:
    assert len({found.name for found in PARTS}) == len(PARTS)
    assert [found.name for found in PARTS[:2]] == ["machine", "sample data"]
    tasks = [found.arguments[0] for found in PARTS if found.function.endswith(":task") and len(found.arguments) == 1]
    assert tasks[:4] == ["davis", "detection", "segmentation", "classification"]
    assert sorted(tasks) == sorted(TASKS)
    for function in ("pretraining", "compiled_pretraining"):
        assert [found.arguments[0] for found in PARTS if found.function.endswith(f":{function}")] == list(METHODS)
    compiles = [name for name, task in TASKS.items() if hasattr(task.config, "compile")]
    assert [found.arguments[0] for found in PARTS if found.function.endswith(":compiled_task")] == compiles
    assert [found.name for found in chosen(["k-NN"])] == ["machine", "sample data", "k-NN ranks", "k-NN search"]
    with pytest.raises(ValueError, match="--parts kNN: no part's name contains it; parts: machine; "):
        chosen(["kNN"])
    with pytest.raises(ValueError, match=r"--minutes 0\.0 must be more than 0"):
        main(["--device", "cpu", "--minutes", "0"])


def start(folder: Path, parts: str, *options: str) -> subprocess.Popen[bytes]:
    """The command with such parts instead of its own."""
    script, arguments = folder / "script.py", ["--device", "cpu", "--tiny", "--output", str(folder), *options]
    script.write_text(
        "import sys\nfrom benchmarks.gpu import main\nfrom tests.benchmarks.gpu_parts import part\n"
        f"if __name__ == '__main__':\n    sys.exit(main({arguments!r}, [{parts}]))\n"
    )
    return subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=folder)


def test_bad_ends_are_rows_and_stop_nothing(tmp_path: Path) -> None:
    parts = [
        "part('breaks', 'fails')",
        "part('hangs', 'hangs', seconds=0.2)",
        "part('dies', 'dies')",
        "part('cannot be imported', 'nothing')",
        "part('is wrong', 'finds', False)",
        "part('is slow', 'finds', False, kind='fast')",
        "part('is right', 'finds', True)",
    ]
    assert start(tmp_path, ", ".join(parts), "--minutes", "1").wait() == 1
    outcomes = results(tmp_path)
    assert {name: outcome["status"] for name, outcome in outcomes.items()} == {
        **dict.fromkeys(("breaks", "dies", "cannot be imported", "is wrong"), "failed"),
        **{"hangs": "timed out", "is slow": "slow", "is right": "passed"},
    }
    ends = {name: outcome["rows"][-1]["measured"] for name, outcome in outcomes.items()}
    assert outcomes["breaks"]["rows"][1]["measured"] == "ValueError: broken on cpu"
    assert ends["breaks"] == "with exit status 1; see breaks.log"
    assert "broken on cpu" in (tmp_path / "breaks.log").read_text()
    assert ends["hangs"].endswith(" s; --minutes gives more")
    assert outcomes["hangs"]["seconds"] < 30
    assert ends["dies"] == "with exit status 3; see dies.log"
    assert outcomes["is right"]["rows"] == [{"what": "what", "measured": {"a | b": 1.5}, "wanted": "b", "passed": True}]
    table = [" ".join(line.split()) for line in (tmp_path / "gpu.md").read_text().splitlines()]
    assert "| breaks | ended | with exit status 1; see breaks.log | | failed |" in table
    assert r"| is slow | what | a \| b 1.5 | b | slow |" in table
    assert r"| is right | what | a \| b 1.5 | b | passed |" in table
    assert not list((tmp_path / "work").iterdir())
    wait_until(lambda: has_ended(int((tmp_path / "hangs.pid").read_text())))


def test_parts_without_time_are_listed(tmp_path: Path) -> None:
    assert start(tmp_path, "part('hangs', 'hangs'), part('is right', 'finds', True)", "--minutes", "0.02").wait() == 1
    assert [outcome["status"] for outcome in results(tmp_path).values()] == ["timed out", "not reached"]
    last = (tmp_path / "gpu.md").read_text().splitlines()[-1]
    assert " ".join(last.split()) == "| is right | | | | not reached |"


def test_a_killed_run_leaves_what_it_measured(tmp_path: Path) -> None:
    process = start(tmp_path, "part('is right', 'finds', True), part('hangs', 'hangs'), part('later', 'finds', True)")
    table = tmp_path / "gpu.md"
    wait_until(lambda: table.exists() and "| before" in table.read_text())  # which is written after results.json
    process.send_signal(signal.SIGKILL)
    process.wait()
    statuses = {name: outcome["status"] for name, outcome in results(tmp_path).items()}
    assert statuses == {"is right": "passed", "hangs": "running", "later": "not reached"}
    assert results(tmp_path)["hangs"]["rows"]
    wait_until(lambda: has_ended(int((tmp_path / "hangs.pid").read_text())))


def test_what_parts_import_leaves_the_gpu_to_forks(tmp_path: Path) -> None:
    assert start(tmp_path, "part('fork', 'is_forked')").wait() == 0


def test_parts_agree_on_the_cpu(tmp_path: Path) -> None:
    """Some that take a second; all of them are a long test."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--output", str(tmp_path)]
    assert not subprocess.run([*command, "--parts", "davis", "k-NN ranks", "classification", "frozen"], check=False).returncode
    outcomes = results(tmp_path)
    assert list(outcomes)[2:] == ["k-NN ranks", "davis", "classification", "frozen features in bfloat16"]
    assert {outcome["status"] for outcome in outcomes.values()} == {"passed"}


def test_what_differs_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose losses, or neighbours, are a little beside those of the CPU."""
    config = GPUConfig(device="cpu", tiny=True, output=tmp_path)
    beside = {1e-5: True, 2e-4: False, math.nan: False}
    for relative, passed in beside.items():
        losses = [1.5, 2.0 * (1 + relative), 1.0], [1.5, 2.0, 1.0]
        monkeypatch.setattr(gpu_checks, "on_both", lambda *_, losses=losses: losses)
        assert next(gpu_checks.pretraining(config, tmp_path, "dino"))["passed"] == passed
    indices = torch.arange(6)
    for ours, passed in ((indices, True), (indices.roll(1), False)):
        monkeypatch.setattr(gpu_checks, "on_both", lambda *_, ours=ours: (ours, indices))
        assert next(gpu_checks.ranks(config, tmp_path))["passed"] == passed
    weights = {"a": torch.ones(3), "b": torch.zeros(2)}
    assert gpu_checks.distance({**weights, "b": torch.tensor([0.0, 3**0.5])}, weights) == pytest.approx(1)
    numbers = {"faster": 2.4, "memory": 0.7}
    for least, passed in ((2.4, True), (2.5, False)):
        assert judged("a", numbers, {"faster": least}, {"memory": 0.7})["passed"] == passed
    assert judged("a", numbers, {}, {"memory": 0.6})["passed"] is False
    assert judged("a", numbers, {}, {})["passed"] is None


@pytest.mark.long
@pytest.mark.parametrize("compiled", [False, True])
def test_every_part_on_the_cpu(tmp_path: Path, compiled: bool) -> None:
    """Speed may be short of what is wanted, and then leaves a trace."""
    parts = [found for found in PARTS if found.kind == "set-up" or found.name.startswith("compiled: ") == compiled]
    assert main(["--device", "cpu", "--tiny", "--minutes", "60", "--output", str(tmp_path)], parts) == 0
    for outcome in results(tmp_path).values():
        assert outcome["status"] in ("passed", "slow"), outcome
        if outcome["kind"] == "correct":
            assert any(row["passed"] for row in outcome["rows"]), outcome
        traced = any(row["what"].startswith("trace of") for row in outcome["rows"])
        assert traced == (outcome["status"] == "slow") or outcome["part"] == "views"
