"""Starts evaluations in other processes, as a user does."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

_EVALUATE = "import importlib, pickle, sys; importlib.import_module(sys.argv[1]).evaluate(pickle.load(open(sys.argv[2], 'rb')))"
_LONGEST_S = 300


def start_evaluation(module: str, options: Any, folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """Start `module.evaluate(options)` in another process with these variables; its options and its log go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / f"options_{environment.get('RANK', 0)}.pickle"
    given.write_bytes(pickle.dumps(options))
    command = [sys.executable, "-c", _EVALUATE, module, str(given)]
    with given.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that its whole group can be killed
        )


def kill_when(process: "subprocess.Popen[bytes]", path: Path) -> None:
    """Kill a process and its workers (SIGKILL) as soon as it has made a file; workers alone could wait for ever on a pipe."""
    end = time.monotonic() + _LONGEST_S
    while not path.exists():
        assert process.poll() is None, f"ended with status {process.returncode} before there was a {path}"
        assert time.monotonic() < end, f"no {path} after {_LONGEST_S} s"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "ended before it could be killed"


def evaluate_in_processes(module: str, options: Any, folder: Path, world_size: int) -> None:
    """Run `module.evaluate(options)` in several processes that find each other as torchrun's do."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    processes = [
        start_evaluation(module, options, folder, RANK=str(rank), LOCAL_RANK=str(rank), **group) for rank in range(world_size)
    ]
    try:
        statuses = [process.wait(timeout=_LONGEST_S) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    logs = [path.read_text() for path in sorted(folder.glob("options_*.log"))]
    assert statuses == [0] * world_size, "\n".join(logs)
