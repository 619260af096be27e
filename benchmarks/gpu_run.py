"""The runner of `benchmarks.gpu`: every part in a process of its own, with a time limit.

Results are written whenever a part has found something, so that a run that is cut leaves what it measured. This file loads no torch:
a part that cannot be imported is a row of the table like any other that fails.
"""

import json
import multiprocessing
import os
import pkgutil
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tabulate import tabulate

from common.files import one_line, write_text_atomically

RESULTS, TABLE, DATA = "results.json", "gpu.md", "data"
# Times its share of the remaining time that a part may take: shares are estimates, and most parts take less.
_PATIENCE = 3.0
# Unless this is more: on a machine that has just been started, the first imports and kernels take long.
_LEAST_PATIENCE, _LEAST_SECONDS = 10.0, 45.0  # times the estimate, but at most so many seconds
_MISSED = {"set-up": "failed", "correct": "failed", "fast": "slow"}  # what a part is called that misses what is wanted


@dataclass(frozen=True, kw_only=True)
class GPUConfig:
    """Prove that PatchBench computes on this machine's GPU what it does on the CPU, and measure how fast it is there."""

    minutes: float = 8  # Time for everything; parts for which none is left are listed as such.
    output: Path = Path("runs/gpu")  # Folder for results.json, gpu.md, the parts' logs, and traces of what is too slow.
    device: Literal["cuda", "cpu"] = "cuda"  # `cpu` compares the CPU with itself, which tries the parts out.
    tiny: bool = False  # Small networks and few steps also where speed is measured, which then means nothing.
    parts: list[str] = field(default_factory=list)  # Only the parts whose names contain one of these words; by default all.

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ValueError(f"--minutes {self.minutes} must be more than 0")


def found(what: str, measured: Any, wanted: str = "", passed: bool | None = None) -> dict[str, Any]:
    """A row: `measured` is a text or a dictionary of numbers, and `passed` is None where nothing is wanted."""
    # Plain values, also of NumPy's: a row that JSON cannot hold would end the run.
    plain = {name: float(value) for name, value in measured.items()} if isinstance(measured, dict) else str(measured)
    return {"what": what, "measured": plain, "wanted": wanted, "passed": None if passed is None else bool(passed)}


class Part(NamedTuple):
    name: str
    kind: Literal["set-up", "correct", "fast"]
    seconds: float  # estimate for a recent GPU, by which the time is shared out
    function: str  # `module:name`; called with the options, an empty folder of its own and the arguments, it yields rows
    arguments: tuple[Any, ...] = ()


def run_parts(parts: Sequence[Part], config: GPUConfig) -> list[dict[str, Any]]:
    """Run parts one after another in the time that there is; what became of each, as results.json has it."""
    outcomes: list[dict[str, Any]] = [
        {"part": part.name, "kind": part.kind, "status": "not reached", "seconds": 0.0, "rows": []} for part in parts
    ]

    def save() -> None:
        content = {"device": config.device, "tiny": config.tiny, "minutes": config.minutes, "parts": outcomes}
        write_text_atomically(config.output / RESULTS, json.dumps(content, indent=1) + "\n")
        write_text_atomically(config.output / TABLE, markdown(config, outcomes))

    shutil.rmtree(config.output / "work", ignore_errors=True)  # what a killed run left
    deadline = time.monotonic() + 60 * config.minutes
    for number, (part, outcome) in enumerate(zip(parts, outcomes, strict=True)):
        remaining = deadline - time.monotonic()
        if remaining > 0:
            share = part.seconds / sum(later.seconds for later in parts[number:])
            print(f"{part.name} ...", file=sys.stderr, flush=True)
            least = min(_LEAST_PATIENCE * part.seconds, _LEAST_SECONDS)
            run_part(part, config, outcome, min(remaining, max(least, _PATIENCE * share * remaining)), save)
            print(f"{part.name}: {outcome['status']} after {outcome['seconds']:.1f} s", file=sys.stderr, flush=True)
        save()
    return outcomes


def run_part(part: Part, config: GPUConfig, outcome: dict[str, Any], limit: float, save: Callable[[], None]) -> None:
    """Run a part in a process group of its own that does not outlive this, and fill in its outcome."""
    rows = outcome["rows"]
    folder = config.output.absolute() / "work" / file_name(part)
    folder.mkdir(parents=True)
    outcome["status"] = "running"
    save()
    # Imports take seconds, so parts are forked from a process that has done them.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([part.function.partition(":")[0]])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(part, config, folder, sender))
    process.start()  # the first waits for the imports
    start = time.monotonic()
    sender.close()
    try:
        while receiver.poll(max(0.0, start + limit - time.monotonic())):
            rows.append(receiver.recv())
            save()
        outcome["status"] = "timed out"
        rows.append(found("ended", f"after {limit:.0f} s; --minutes gives more"))
    except EOFError:
        process.join()
        if process.exitcode:
            outcome["status"] = "failed"
            rows.append(found("ended", f"with exit status {process.exitcode}; see {file_name(part)}.log"))
        elif any(row["passed"] is False for row in rows):
            outcome["status"] = _MISSED[part.kind]
        else:
            outcome["status"] = "passed"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        outcome["seconds"] = time.monotonic() - start
        shutil.rmtree(folder, ignore_errors=True)


def file_name(part: Part) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in part.name).split())


def _work(part: Part, config: GPUConfig, folder: Path, sender: Connection) -> None:
    """In the part's own process: send rows, and end with status 1 if it fails."""
    os.setsid()
    # A compilation that is cut may leave half a file, on which later ones would fail.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    log = os.open(config.output / f"{file_name(part)}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        rows: Iterator[dict[str, Any]] = pkgutil.resolve_name(part.function)(config, folder, *part.arguments)
        for row in rows:
            sender.send(row)
    except Exception as error:
        traceback.print_exc()
        sender.send(found("error", f"{type(error).__name__}: {one_line(str(error), 300)}"))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # else it would wait for processes of its own, which wait for it


def _end_with_parent() -> None:
    """A part that nobody waits for would keep the GPU."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(os.getpid(), signal.SIGKILL)


def markdown(config: GPUConfig, outcomes: Sequence[dict[str, Any]]) -> str:
    """One line for each row, and one for each part without any."""
    cells = []
    for outcome in outcomes:
        for row in outcome["rows"] or [found("", "")]:
            measured = row["measured"]
            if isinstance(measured, dict):
                measured = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
            verdicts = {True: "passed", False: _MISSED[outcome["kind"]], None: ""}
            cells.append([outcome["part"], row["what"], measured, row["wanted"], verdicts[row["passed"]]])
        if outcome["status"] not in ("passed", "slow"):
            cells[-1][-1] = outcome["status"]
    cells = [[cell.replace("|", "\\|").replace("\n", "; ") for cell in line] for line in cells]
    tiny = ", with tiny networks, whose speeds mean nothing" if config.tiny else ""
    table = tabulate(cells, ("part", "what", "measured", "wanted", "outcome"), tablefmt="github", disable_numparse=True)
    return f"`python -m benchmarks.gpu --device {config.device}`{tiny}:\n\n{table}\n"
