"""J&F on one core: PatchBench beside a plain implementation of the official evaluation and vos-benchmark, on the same masks.

Without predictions, each frame's mask is the annotation of the frame before, for sequences with at least 3 annotated frames. Seconds
are CPU time, the least of some rounds in turns. Differences are between the per-object means of J and of F, in [0, 1]. vos-benchmark
(PyPI) pools objects over a sequence and has no recall or decay.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from vos_benchmark.benchmark import VideoEvaluator

from benchmarks.turns import print_table, rounds, run
from eval.davis.measures import measure_sequence
from tests.references import davis_scores as reference

_LEAST_FRAMES, _ROUNDS = 3, 3  # the first and the last frame are not scored; the best round counts

Means = npt.NDArray[np.float64]  # [(J, F), objects]: means over the frames


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the scoring of masks."""

    annotations: Path
    """Folder with one folder of masks per sequence."""
    predictions: Path | None = None
    """The same for the predictions, whose sequences are measured; by default the annotations a frame late."""


def ours(annotations: Path, predictions: Path) -> Means:
    measures = measure_sequence(annotations, predictions)
    return np.stack([measures.region.mean(1), measures.boundary.mean(1)])


def plain(annotations: Path, predictions: Path) -> Means:
    return np.stack([values.mean(1) for values in reference.measure_sequence(annotations, predictions)])


def vos_benchmark(annotations: Path, predictions: Path) -> Means:
    _, *measures = VideoEvaluator(str(annotations.parent), str(predictions.parent))(annotations.name)
    return np.array([[values[number] for number in sorted(values)] for values in measures]) / 100


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


def benchmark(config: BenchmarkConfig) -> None:
    cv2.setNumThreads(1)
    print(f"OpenCV {cv2.__version__}, NumPy {np.__version__}, one core\n")
    measured: dict[str, tuple[dict[str, float], dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as name:
        predictions = config.predictions or delay(config.annotations, Path(name))
        for folder in sorted(path for path in predictions.iterdir() if path.is_dir()):
            parts = {part: partial(score, config.annotations / folder.name, folder) for part, score in RUNS.items()}
            seconds, outcomes = rounds(parts, _ROUNDS)
            best = outcomes["PatchBench"]
            differences = {part: f"{np.abs(outcome - best).max():.0e}" for part, outcome in outcomes.items()}
            measured[f"{folder.name}, {best.shape[1]} objects"] = {part: min(seconds[part]) for part in RUNS}, differences
    total = {part: sum(seconds[part] for seconds, _ in measured.values()) for part in RUNS}
    measured["all"] = total, dict.fromkeys(RUNS, "")
    columns, rows = ["sequence", "PatchBench s"], []
    for sequence, (least, differences) in measured.items():
        ours = least["PatchBench"]
        rows.append([sequence, f"{ours:.3f}"])
        for part in ("plain", "vos-benchmark"):
            rows[-1] += [f"{least[part]:.2f}", f"{least[part] / ours:.1f}", differences[part]]
    for part in ("plain", "vos-benchmark"):
        columns += [f"{part} s", "times ours", "difference"]
    print_table(columns, rows)


if __name__ == "__main__":
    run("davis_scores", BenchmarkConfig, benchmark)
