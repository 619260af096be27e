"""J&F on one core: PatchBench beside a plain implementation of the official evaluation and vos-benchmark, on the same masks.

    python -m benchmarks.davis_scores --annotations DAVIS/Annotations/480p --predictions DIR

Seconds are CPU time, so that other work on the machine disturbs them little. Differences are between the per-object means of J and
of F, in [0, 1]. vos-benchmark (PyPI) pools objects over a sequence and has no recall or decay.
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from vos_benchmark.benchmark import VideoEvaluator

from common.command import parse_config, run_command
from eval.davis.measures import measure_sequence
from tests.references import davis_scores as reference

Means = npt.NDArray[np.float64]
"""[objects, (J, F)]: means over the frames."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the scoring of masks."""

    annotations: Path
    """Folder with one folder of masks per sequence."""
    predictions: Path
    """The same for the predictions; their sequences are measured."""
    rounds: int = 3
    """The best of so many counts, in turns."""


def ours(annotations: Path, predictions: Path) -> Means:
    """PatchBench."""
    measures = measure_sequence(annotations, predictions)
    return np.stack([measures.region.mean(1), measures.boundary.mean(1)], axis=1)


def plain(annotations: Path, predictions: Path) -> Means:
    """The official evaluation in plain steps."""
    region, boundary = reference.measure_sequence(annotations, predictions)
    return np.stack([region.mean(1), boundary.mean(1)], axis=1)


def vos_benchmark(annotations: Path, predictions: Path) -> Means:
    """vos-benchmark, its function for one video."""
    _, region, boundary = VideoEvaluator(str(annotations.parent), str(predictions.parent))(annotations.name)
    return np.array([[region[number], boundary[number]] for number in sorted(region)]) / 100


RUNS: dict[str, Callable[[Path, Path], Means]] = {"plain": plain, "vos-benchmark": vos_benchmark, "PatchBench": ours}


def measure(annotations: Path, predictions: Path, rounds: int) -> tuple[dict[str, float], dict[str, Means]]:
    """Seconds of CPU time, the least of some rounds, and outcomes; the runs take turns."""
    seconds, outcomes = dict.fromkeys(RUNS, float("inf")), {}
    for _ in range(rounds):
        for name, run in RUNS.items():
            start = time.process_time()
            outcomes[name] = run(annotations, predictions)
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds, outcomes


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table with a row per sequence."""
    cv2.setNumThreads(1)
    print(f"{platform.processor() or platform.machine()}, OpenCV {cv2.__version__}, NumPy {np.__version__}, one core\n")
    others = [name for name in RUNS if name != "PatchBench"]
    print("| sequence | objects | frames | PatchBench s |", *(f"{name} s | times ours | difference |" for name in others))
    print("| " + "--- | " * (4 + 3 * len(others)))
    total = dict.fromkeys(RUNS, 0.0)
    for folder in sorted(path for path in config.predictions.iterdir() if path.is_dir()):
        annotations = config.annotations / folder.name
        seconds, outcomes = measure(annotations, folder, config.rounds)
        total = {name: total[name] + seconds[name] for name in RUNS}
        best = outcomes["PatchBench"]
        print(
            f"| {folder.name} | {len(best)} | {len(list(annotations.glob('*.png'))) - 2} | {seconds['PatchBench']:.3f} |",
            end="",
        )
        for name in others:
            difference = np.abs(outcomes[name] - best).max()
            print(f" {seconds[name]:.2f} | {seconds[name] / seconds['PatchBench']:.1f} | {difference:.0e} |", end="")
        print()
    print(f"| all | | | {total['PatchBench']:.3f} |", end="")
    print(*(f" {total[name]:.2f} | {total[name] / total['PatchBench']:.1f} | |" for name in others))


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.davis_scores", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
