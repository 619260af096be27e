"""How all benchmarks measure: what is compared takes turns in one run, so that other work on the machine disturbs all alike."""

import contextlib
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
CPU = torch.device("cpu")
SECONDS, FASTER, OF_MEMORY = "s/step", "times as fast", "of the reference's MiB"  # columns

T = TypeVar("T")


class Table(NamedTuple):
    """What a benchmark found: on what, and rows, which map the same columns to their cells; the first names the row."""

    heading: str
    rows: list[dict[str, Any]]


class Step(NamedTuple):
    """Seconds on the clock and seconds of the process, all its threads together; and what the step gave, such as a loss."""

    wall: float
    cpu: float
    value: float = 0.0


def now() -> tuple[float, float]:
    """Both clocks of `Step`, when a GPU that this process uses has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


class Turns:
    """In a part's own process: `begin` waits for its turn, `end` reports the step. The first after the warm-up can be traced."""

    def __init__(self, parent: Connection, trace: Path | None) -> None:
        self._parent, self._trace, self._steps = parent, trace, 0
        self._profiler = contextlib.ExitStack()

    def begin(self) -> None:
        self._parent.recv()
        if self._trace and self._steps == WARM_UP_STEPS:
            profiler = torch.profiler.profile()
            self._profiler.callback(profiler.export_chrome_trace, str(self._trace))  # after the profiler has stopped
            self._profiler.enter_context(profiler)
        self._since = now()

    def end(self, value: float = 0.0) -> None:
        wall, cpu = (after - before for before, after in zip(self._since, now(), strict=True))
        self._profiler.close()
        self._steps += 1
        self._parent.send(Step(wall, cpu, value))


def take_turns(
    work: Callable[..., torch.device],
    parts: Sequence[str],
    steps: int,
    *arguments: Any,
    threads: int = 2,
    trace: Path | None = None,
) -> tuple[dict[str, list[Step]], dict[str, int]]:
    """Measure parts that advance by a step in turns, each first in its turn: the steps and the peak memory in bytes of each.

    Each is a process of its own, in which `work(turns, part, *arguments)` does the steps and returns the device that it worked on.
    With `trace`, the first step after the warm-up is profiled into that file, which Chrome and Perfetto read.
    """
    context = multiprocessing.get_context("spawn")  # a forked process would count its parent's memory
    pipes: dict[str, Connection] = {}
    for part in parts:
        pipes[part], theirs = context.Pipe()
        # Not a daemon: some have processes of their own.
        context.Process(target=_run, args=(work, part, theirs, threads, trace, arguments)).start()
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


def _run(
    work: Callable[..., torch.device], part: str, pipe: Connection, threads: int, trace: Path | None, arguments: Sequence[Any]
) -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    turns = Turns(pipe, trace)
    device = work(turns, part, *arguments)
    turns.begin()
    pipe.send(peak_memory_bytes(device))


def rounds(
    parts: Mapping[str, Callable[[], T]], count: int, device: torch.device = CPU
) -> tuple[dict[str, list[float]], dict[str, T], dict[str, dict[str, float]]]:
    """Seconds of parts that take turns in this process, what each gives, and on a GPU the column with its peak memory.

    They are CPU seconds, which other work disturbs less; on a GPU those of the clock, after a round in which it chooses its kernels.
    """
    clock, warm_up = (1, 0) if device.type == "cpu" else (0, 1)
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    given, memory = {}, {}
    for number in range(warm_up + count):
        for part, do in parts.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            start = now()[clock]
            given[part] = do()
            if number >= warm_up:
                seconds[part].append(now()[clock] - start)
            memory[part] = {"peak MiB": peak_memory_bytes(device) / MEBIBYTE} if device.type == "cuda" else {}
    return seconds, given, memory


def ratio(before: Sequence[float], after: Sequence[float]) -> float:
    """How many times as fast: the median of the steps' own ratios."""
    return median(numerator / denominator for numerator, denominator in zip(before, after, strict=True))


def table_of_steps(heading: str, steps: Mapping[str, Sequence[Step]], memory: Mapping[str, int]) -> Table:
    """What `take_turns` gives, without the steps to warm up; the first part is the reference."""
    reference, *_ = steps
    measured = {part: taken[WARM_UP_STEPS:] for part, taken in steps.items()}
    walls = {part: [step.wall for step in taken] for part, taken in measured.items()}
    cpus = {part: [step.cpu for step in taken] for part, taken in measured.items()}
    rows = [
        {
            "": part,
            SECONDS: median(walls[part]),
            FASTER: ratio(walls[reference], walls[part]),
            "CPU s/step": median(cpus[part]),
            "times as fast in CPU s": ratio(cpus[reference], cpus[part]),
            "peak MiB": memory[part] // MEBIBYTE,
            OF_MEMORY: memory[part] / memory[reference],
        }
        for part in steps
    ]
    return Table(heading, rows)


def machine(device: torch.device) -> str:
    """What a step ran on, for the line above a table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, 2 threads"
    return f"{name}, torch {torch.__version__}"


def print_table(table: Table) -> None:
    rows = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row.values()] for row in table.rows]
    print(f"{table.heading}\n\n{tabulate(rows, list(table.rows[0]), tablefmt='github', disable_numparse=True)}\n", flush=True)


def run(name: str, config_class: type[T], benchmark: Callable[[T, Path], Iterable[Table]]) -> None:
    """Run a benchmark as a command, with an empty folder that goes with it."""

    def main(argv: Sequence[str]) -> None:
        logging.disable(logging.INFO)
        with tempfile.TemporaryDirectory() as folder:
            for table in benchmark(parse(config_class, argv, f"python -m benchmarks.{name}"), Path(folder)):
                print_table(table)

    run_command(main)
