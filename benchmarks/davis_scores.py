"""J&F on one core: PatchBench beside a plain implementation of the official evaluation and vos-benchmark, on the same masks.

Without predictions, each frame's mask is the annotation of the frame before, for sequences with at least 3 annotated frames. Seconds
are CPU time, the least of some rounds in turns. Differences are between the per-object means of J and of F, in [0, 1]. vos-benchmark
(PyPI) pools objects over a sequence and has no recall or decay.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from vos_benchmark.benchmark import VideoEvaluator

from benchmarks.turns import Table, rounds, run
from eval.propagation.measures import measure_sequence
from tests.references import davis_scores as reference

_LEAST_FRAMES, _ROUNDS = 3, 3  # the first and the last frame are not scored; the best round counts
Means = npt.NDArray[np.float64]  # [(J, F), objects]: means over the frames


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the scoring of masks."""

    annotations: Path  # Folder with one folder of masks per sequence.
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


def row(name: str, seconds: Mapping[str, float], differences: Mapping[str, float]) -> dict[str, Any]:
    """The cells of the table's row, from what the parts took and by how much they differ from ours."""
    ours, *others = seconds
    cells: dict[str, Any] = {"sequence": name, f"{ours} s": seconds[ours]}
    for part in others:
        difference = f"{differences[part]:.0e}" if part in differences else ""
        cells |= {f"{part} s": seconds[part], f"{part}: times ours": seconds[part] / seconds[ours]}
        cells |= {f"{part}: difference": difference}
    return cells


def benchmark(config: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    cv2.setNumThreads(1)
    predictions = config.predictions or delay(config.annotations, folder)
    rows, totals = [], dict.fromkeys(RUNS, 0.0)
    for masks in sorted(path for path in predictions.iterdir() if path.is_dir()):
        parts = {part: partial(score, config.annotations / masks.name, masks) for part, score in RUNS.items()}
        taken, means, _ = rounds(parts, _ROUNDS)
        seconds = {part: min(taken[part]) for part in RUNS}
        totals = {part: totals[part] + seconds[part] for part in RUNS}
        ours = means["PatchBench"]
        differences = {part: float(np.abs(theirs - ours).max()) for part, theirs in means.items()}
        rows.append(row(f"{masks.name}, {ours.shape[1]} objects", seconds, differences))
    yield Table(f"OpenCV {cv2.__version__}, NumPy {np.__version__}, one core", [*rows, row("all", totals, {})])


if __name__ == "__main__":
    run("davis_scores", BenchmarkConfig, benchmark)
