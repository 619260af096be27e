"""How all benchmarks measure: what is compared takes turns in one run, so that other work on the machine disturbs all alike."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import torch

from common.distributed import peak_memory_bytes

MEBIBYTE = 2**20


class Step(NamedTuple):
    """What one step took."""

    wall: float
    """Seconds on the clock."""
    cpu: float
    """Seconds of the process, all its threads together; other work on the machine disturbs them less."""
    value: float = 0.0
    """What the step gave, such as a loss."""


class Turns:
    """In a part's own process: `begin` waits for its turn, `end` reports the step."""

    def __init__(self, parent: Connection) -> None:
        self._parent = parent

    def begin(self) -> None:
        self._parent.recv()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self, value: float = 0.0) -> None:
        self._parent.send(Step(time.perf_counter() - self._wall, time.process_time() - self._cpu, value))


def take_turns(
    work: Callable[..., torch.device], parts: Sequence[str], steps: int, *arguments: Any
) -> tuple[dict[str, list[Step]], dict[str, int]]:
    """Measure parts that advance by a step in turns, each first in its turn; each is a process of its own with its own peak memory.

    Args:
        work: Called as `work(turns, part, *arguments)` in each process, does the steps, returns the device it worked on.
        parts: What is compared.
        steps: How many steps each part does.
        arguments: What `work` needs besides.

    Returns:
        The steps and the peak memory in bytes of each part.
    """
    context = multiprocessing.get_context("spawn")  # a forked process would count its parent's memory
    pipes: dict[str, Connection] = {}
    for part in parts:
        pipes[part], theirs = context.Pipe()
        # Not a daemon: some have processes of their own.
        context.Process(target=_run, args=(work, part, theirs, arguments)).start()
        theirs.close()
    taken: dict[str, list[Step]] = {part: [] for part in parts}
    for number in range(steps):
        first = number % len(parts)
        for part in (*parts[first:], *parts[:first]):
            pipes[part].send(True)
            taken[part].append(pipes[part].recv())
    for pipe in pipes.values():
        pipe.send(True)
    return taken, {part: pipe.recv() for part, pipe in pipes.items()}


def _run(work: Callable[..., torch.device], part: str, pipe: Connection, arguments: Sequence[Any]) -> None:
    turns = Turns(pipe)
    device = work(turns, part, *arguments)
    turns.begin()
    pipe.send(peak_memory_bytes(device))


def ratio(before: Sequence[float], after: Sequence[float]) -> float:
    """How many times as fast: the median of the steps' own ratios."""
    return median(one / other for one, other in zip(before, after, strict=True))


def table(header: str, rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table; the header's columns are divided by `|`."""
    columns = header.split("|")
    for cells in ([column.strip() for column in columns], ["---"] * len(columns), *rows):
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
