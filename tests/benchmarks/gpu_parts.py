"""Parts for the runner of `benchmarks.gpu`, which each end in their own way. Nothing here loads torch."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu_run import GPUConfig, Part, found


def finds(config: GPUConfig, folder: Path, passed: bool) -> Iterator[dict[str, Any]]:
    (folder / "scratch").write_text("")
    yield found("what", {"a | b": 1.5}, "b", passed)


def fails(config: GPUConfig, folder: Path) -> Iterator[dict[str, Any]]:
    yield found("first", "1")
    raise ValueError(f"broken on {config.device}")


def hangs(config: GPUConfig, folder: Path) -> Iterator[dict[str, Any]]:
    """Sleeps beside a child process, which must not outlive it."""
    if os.fork() == 0:
        time.sleep(600)
    (config.output / "hangs.pid").write_text(str(os.getpid()))
    yield found("before", "1")
    time.sleep(600)


def dies(config: GPUConfig, folder: Path) -> Iterator[dict[str, Any]]:
    os._exit(3)


def is_forked(config: GPUConfig, folder: Path) -> Iterator[dict[str, Any]]:
    """Whether a process forked after what the other parts import, as this one is, could use a GPU."""
    import torch

    import benchmarks.gpu_checks
    import benchmarks.gpu_speed  # noqa: F401

    child = os.fork()
    if child == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    yield found("the fork may use a GPU", "", "", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0)


def part(
    name: str, function: str, *arguments: object, kind: Literal["correct", "fast"] = "correct", seconds: float = 30
) -> Part:
    return Part(name, kind, seconds, f"tests.benchmarks.gpu_parts:{function}", arguments)
