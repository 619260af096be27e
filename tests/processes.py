"""Functions in other processes, forked by a server that has imported everything once; scripts under torchrun are started afresh."""

import atexit
import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from common.cli import run_command
from eval.tasks import TASKS
from tests.conftest import REPOSITORY

# The processes of these tests must not find each other through variables of a job that the tests run in.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(REPOSITORY),
}
LONGEST_S = 300
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("tests.commands", "tools.eval_all", "tools.ablation", "tools.summary", "tables.report.page"),
        *("pretrain.run", "submitit.core.submission", *(f"eval.{task}.task" for task in TASKS)),
    ]
)


def fork(log: Path, target: Callable[..., object], *arguments: object, **variables: str) -> BaseProcess:
    """Start `target(*arguments)` with these variables in its environment; what it prints is added to `log`.

    It leads a process group, so that it can be killed with its children.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - ENVIRONMENT.keys():
            patch.delenv(name)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    process = CONTEXT.Process(target=_run, args=(log, variables, target, *arguments))
    process.start()
    return process


def _run(log: Path, variables: dict[str, str], target: Callable[..., object], *arguments: object) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # loaders start as they do in a command, not from a server of their own
    os.chdir(REPOSITORY)
    os.environ |= variables
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    target(*arguments)


@atexit.register
def _leave_none() -> None:
    """What a failed test leaves running would otherwise be waited for."""
    for process in multiprocessing.active_children():
        process.kill()


def run_as_command(main: Callable[[Sequence[str]], int | None], arguments: Sequence[object]) -> None:
    """A command's `main` as its entry point runs it."""
    sys.argv = ["command", *map(str, arguments)]
    run_command(main)


def statuses(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Wait for processes, end those that take too long, and return how they ended."""
    for process in processes:
        process.join(LONGEST_S)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
    return [process.exitcode for process in processes]


def run_group(count: int, folder: Path, target: Callable[..., object], *arguments: object) -> tuple[list[int | None], str]:
    """Run `target(*arguments)` in processes with torchrun's variables; return their statuses and what all have printed."""
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    logs = [folder / f"{rank}.log" for rank in range(count)]
    processes = [fork(log, target, *arguments, **common, RANK=str(rank), LOCAL_RANK=str(rank)) for rank, log in enumerate(logs)]
    ended = statuses(processes)
    return ended, "".join(log.read_text() for log in logs)


def evaluate(module: str, options: Any) -> None:
    importlib.import_module(module).evaluate(options)


def evaluate_in_two(module: str, options: Any, folder: Path) -> str:
    """Run `module.evaluate(options)` in two processes, and return their log, which goes to `folder`."""
    ended, messages = run_group(2, folder, evaluate, module, options)
    assert ended == [0, 0], messages
    return messages


def kill_when(process: BaseProcess, path: Path) -> None:
    """Kill a process and its workers (SIGKILL) as soon as it has made a file; workers alone could wait for ever on a pipe."""
    end = time.monotonic() + LONGEST_S
    while not path.exists():
        assert process.is_alive(), f"ended with status {process.exitcode} before there was a {path}"
        assert time.monotonic() < end, f"no {path} after {LONGEST_S} s"
        time.sleep(0.002)
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "ended before it could be killed"


def run_two(*program: str) -> "subprocess.CompletedProcess[str]":
    """Run a script, or `-m` and a module, with its arguments in two processes under torchrun."""
    command = [sys.executable, "-m", "common.launch", "--standalone", "--nproc-per-node", "2", *program]
    return subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=LONGEST_S
    )
