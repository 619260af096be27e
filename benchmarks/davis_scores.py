"""J&F on one core: PatchBench beside a plain implementation of the official evaluation and vos-benchmark, on the same masks.

    python -m benchmarks.davis_scores --annotations DAVIS/Annotations/480p [--predictions DIR]

Without predictions, each frame's mask is the annotation of the frame before, for sequences with at least 3 annotated frames. Seconds
are CPU time, the least of some rounds in turns. Differences are between the per-object means of J and of F, in [0, 1]. vos-benchmark
(PyPI) pools objects over a sequence and has no recall or decay.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from vos_benchmark.benchmark import VideoEvaluator

from benchmarks.turns import run, table
from eval.davis.measures import measure_sequence
from tests.references import davis_scores as reference

_LEAST_FRAMES, _ROUNDS = 3, 3  # the first and the last frame are not scored; the best round counts

Means = npt.NDArray[np.float64]  # [objects, (J, F)]: means over the frames


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the scoring of masks."""

    annotations: Path
    """Folder with one folder of masks per sequence."""
    predictions: Path | None = None
    """The same for the predictions, whose sequences are measured; by default the annotations a frame late."""


def means(region: npt.NDArray[np.float64], boundary: npt.NDArray[np.float64]) -> Means:
    return np.stack([region.mean(1), boundary.mean(1)], axis=1)


def ours(annotations: Path, predictions: Path) -> Means:
    measures = measure_sequence(annotations, predictions)
    return means(measures.region, measures.boundary)


def plain(annotations: Path, predictions: Path) -> Means:
    return means(*reference.measure_sequence(annotations, predictions))


def vos_benchmark(annotations: Path, predictions: Path) -> Means:
    _, region, boundary = VideoEvaluator(str(annotations.parent), str(predictions.parent))(annotations.name)
    return np.array([[region[number], boundary[number]] for number in sorted(region)]) / 100


RUNS: dict[str, Callable[[Path, Path], Means]] = {"PatchBench": ours, "plain": plain, "vos-benchmark": vos_benchmark}


def delay(annotations: Path, folder: Path) -> Path:
    """Predictions that are a frame late."""
    for sequence in (path for path in annotations.iterdir() if path.is_dir()):
        masks = sorted(sequence.glob("*.png"))
        if len(masks) < _LEAST_FRAMES:
            print(f"{sequence.name} is left out: {len(masks)} annotated frames")
            continue
        (folder / sequence.name).mkdir()
        for before, mask in zip([masks[0], *masks], masks, strict=False):
            shutil.copy(before, folder / sequence.name / mask.name)
    return folder


def measure(annotations: Path, predictions: Path) -> tuple[dict[str, float], dict[str, Means]]:
    """Seconds and outcomes."""
    seconds, outcomes = dict.fromkeys(RUNS, float("inf")), {}
    for _ in range(_ROUNDS):
        for name, score in RUNS.items():
            start = time.process_time()
            outcomes[name] = score(annotations, predictions)
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds, outcomes


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table with a row per sequence."""
    cv2.setNumThreads(1)
    print(f"OpenCV {cv2.__version__}, NumPy {np.__version__}, one core\n")
    rows, total = [], dict.fromkeys(RUNS, 0.0)
    with tempfile.TemporaryDirectory() as name:
        predictions = config.predictions or delay(config.annotations, Path(name))
        for folder in sorted(path for path in predictions.iterdir() if path.is_dir()):
            seconds, outcomes = measure(config.annotations / folder.name, folder)
            best = outcomes["PatchBench"]
            differences = {name: f"{np.abs(outcome - best).max():.0e}" for name, outcome in outcomes.items()}
            rows.append([f"{folder.name}, {len(best)} objects", *_cells(seconds, differences)])
            total = {name: total[name] + seconds[name] for name in RUNS}
    rows.append(["all", *_cells(total, dict.fromkeys(RUNS, ""))])
    theirs = [column for name in ("plain", "vos-benchmark") for column in (f"{name} s", "times ours", "difference")]
    table(["sequence", "PatchBench s", *theirs], rows)


def _cells(seconds: dict[str, float], differences: dict[str, str]) -> list[str]:
    ours, *others = seconds
    cells = [f"{seconds[ours]:.3f}"]
    for name in others:
        cells += [f"{seconds[name]:.2f}", f"{seconds[name] / seconds[ours]:.1f}", differences[name]]
    return cells


if __name__ == "__main__":
    run("davis_scores", BenchmarkConfig, benchmark)
