"""J&F on one core: PatchBench beside a plain implementation of the official evaluation, on the same masks.

    python -m benchmarks.davis_scores --annotations DAVIS/Annotations/480p --predictions DIR

Seconds are CPU time, so that other work on the machine disturbs them little.
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from common.command import parse_config, run_command
from eval.davis.measures import measure_sequence
from tests.references import davis_scores as reference

OutcomeT = TypeVar("OutcomeT")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the scoring of masks."""

    annotations: Path
    """Folder with one folder of masks per sequence."""
    predictions: Path
    """The same for the predictions; their sequences are measured."""
    rounds: int = 3
    """The best of so many counts, in turns."""


def timed(function: Callable[[Path, Path], OutcomeT], annotations: Path, predictions: Path) -> tuple[float, OutcomeT]:
    """Seconds of CPU time, and what the function returns."""
    start = time.process_time()
    outcome = function(annotations, predictions)
    return time.process_time() - start, outcome


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table with a row per sequence."""
    cv2.setNumThreads(1)
    print(f"{platform.processor() or platform.machine()}, OpenCV {cv2.__version__}, NumPy {np.__version__}, one core\n")
    print("| sequence | objects | frames | reference s | PatchBench s | times as fast | largest difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    slow_total = fast_total = 0.0
    for folder in sorted(path for path in config.predictions.iterdir() if path.is_dir()):
        slow, fast = [], []
        for _ in range(config.rounds):
            seconds, plain = timed(reference.measure_sequence, config.annotations / folder.name, folder)
            slow.append(seconds)
            seconds, ours = timed(measure_sequence, config.annotations / folder.name, folder)
            fast.append(seconds)
        difference = max(np.abs(plain[0] - ours.region).max(), np.abs(plain[1] - ours.boundary).max())
        slow_total, fast_total = slow_total + min(slow), fast_total + min(fast)
        numbers = f"{ours.region.shape[0]} | {ours.region.shape[1]} | {min(slow):.2f} | {min(fast):.3f}"
        print(f"| {folder.name} | {numbers} | {min(slow) / min(fast):.1f} | {difference:.1e} |")
    print(f"| all | | | {slow_total:.2f} | {fast_total:.3f} | {slow_total / fast_total:.1f} | |")


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.davis_scores", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
