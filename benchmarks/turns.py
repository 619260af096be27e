"""How all benchmarks measure: what is compared takes turns in one run, so that other work on the machine disturbs all alike."""

import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import torch
from tabulate import tabulate

from common.cli import parse, run_command
from common.distributed import peak_memory_bytes

MEBIBYTE = 2**20
WARM_UP_STEPS = 2

T = TypeVar("T")


class Step(NamedTuple):
    """Seconds on the clock and seconds of the process, all its threads together; and what the step gave, such as a loss."""

    wall: float
    cpu: float
    value: float = 0.0


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
    work: Callable[..., torch.device], parts: Sequence[str], steps: int, *arguments: Any, threads: int = 2
) -> tuple[dict[str, list[Step]], dict[str, int]]:
    """Measure parts that advance by a step in turns, each first in its turn: the steps and the peak memory in bytes of each.

    Each is a process of its own, in which `work(turns, part, *arguments)` does the steps and returns the device that it worked on.
    """
    context = multiprocessing.get_context("spawn")  # a forked process would count its parent's memory
    pipes: dict[str, Connection] = {}
    for part in parts:
        pipes[part], theirs = context.Pipe()
        # Not a daemon: some have processes of their own.
        context.Process(target=_run, args=(work, part, theirs, threads, arguments)).start()
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


def _run(work: Callable[..., torch.device], part: str, pipe: Connection, threads: int, arguments: Sequence[Any]) -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    turns = Turns(pipe)
    device = work(turns, part, *arguments)
    turns.begin()
    pipe.send(peak_memory_bytes(device))


def rounds(parts: Mapping[str, Callable[[], T]], count: int) -> tuple[dict[str, list[float]], dict[str, T]]:
    """CPU seconds of parts that take turns in this process, and what each gives."""
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    given = {}
    for _ in range(count):
        for part, do in parts.items():
            start = time.process_time()
            given[part] = do()
            seconds[part].append(time.process_time() - start)
    return seconds, given


def ratio(before: Sequence[float], after: Sequence[float]) -> float:
    """How many times as fast: the median of the steps' own ratios."""
    return median(numerator / denominator for numerator, denominator in zip(before, after, strict=True))


def print_steps(steps: Mapping[str, Sequence[Step]], memory: Mapping[str, int]) -> None:
    """Print a table of steps after those to warm up; the first part is the reference."""
    reference, *_ = steps
    rows: list[list[object]] = []
    for part, taken in steps.items():
        rows.append([part])
        for clock in (0, 1):
            before, after = ([step[clock] for step in those[WARM_UP_STEPS:]] for those in (steps[reference], taken))
            rows[-1] += [f"{median(after):.3f}", f"{ratio(before, after):.2f}"]
        rows[-1] += [memory[part] // MEBIBYTE, f"{memory[part] / memory[reference]:.2f}"]
    print_table(("", "s/step", "times as fast", "CPU s/step", "times as fast", "peak MiB", "of the reference's"), rows)


def machine(device: torch.device) -> str:
    """What a step ran on, for the line above a table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, 2 threads"
    return f"{name}, torch {torch.__version__}"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(tabulate(rows, columns, tablefmt="github", disable_numparse=True), flush=True)


def run(name: str, config_class: type[T], benchmark: Callable[[T, Path], None]) -> None:
    """Run a benchmark as a command, with an empty folder that goes with it."""

    def main(argv: Sequence[str]) -> None:
        logging.disable(logging.INFO)
        with tempfile.TemporaryDirectory() as folder:
            benchmark(parse(config_class, argv, f"python -m benchmarks.{name}"), Path(folder))

    run_command(main)
