"""Starts evaluations in other processes, as a user does: `python -m tests.processes MODULE OPTIONS` is one of them."""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
_LONGEST_S = 300


def _evaluation(module: str, options: Any, folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "options.pickle"
    given.write_bytes(pickle.dumps(options))
    return ["-m", "tests.processes", module, str(given)]


def start_evaluation(module: str, options: Any, folder: Path) -> "subprocess.Popen[bytes]":
    """Start `module.evaluate(options)` in another process; its options and its log go to `folder`."""
    command = [sys.executable, *_evaluation(module, options, folder)]
    with (folder / "messages.log").open("wb") as log:
        # A session of its own, so that its whole group can be killed.
        return subprocess.Popen(command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)


def kill_when(process: "subprocess.Popen[bytes]", path: Path) -> None:
    """Kill a process and its workers (SIGKILL) as soon as it has made a file; workers alone could wait for ever on a pipe."""
    end = time.monotonic() + _LONGEST_S
    while not path.exists():
        assert process.poll() is None, f"ended with status {process.returncode} before there was a {path}"
        assert time.monotonic() < end, f"no {path} after {_LONGEST_S} s"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "ended before it could be killed"


def run_two(*program: str) -> "subprocess.CompletedProcess[str]":
    """Run a script, or `-m` and a module, with its arguments in two processes."""
    command = [sys.executable, "-m", "common.launch", "--standalone", "--nproc-per-node", "2", *program]
    return subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=_LONGEST_S
    )


def evaluate_in_two(module: str, options: Any, folder: Path) -> str:
    """Run `module.evaluate(options)` in two processes, and return their log."""
    finished = run_two(*_evaluation(module, options, folder))
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


if __name__ == "__main__":
    importlib.import_module(sys.argv[1]).evaluate(pickle.loads(Path(sys.argv[2]).read_bytes()))
