"""J&F on one core: PatchBench beside a plain implementation of the official evaluation and vos-benchmark, on the same masks.

Without predictions, each frame's mask is the annotation of the frame before, for sequences with at least 3 annotated frames. Seconds
are CPU time, the least of some rounds in turns. Differences are between the per-object means of J and of F, in [0, 1]. vos-benchmark
(PyPI) pools objects over a sequence and has no recall or decay.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from vos_benchmark.benchmark import VideoEvaluator

from benchmarks.turns import print_table, rounds, run
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


def row(name: str, seconds: Sequence[float], differences: Sequence[str]) -> list[str]:
    """The cells of the table's row, from what the parts took and by how much they differ from ours."""
    ours, *others = seconds
    cells = [name, f"{ours:.3f}"]
    for theirs, difference in zip(others, differences, strict=True):
        cells += [f"{theirs:.2f}", f"{theirs / ours:.1f}", difference]
    return cells


def benchmark(config: BenchmarkConfig, folder: Path) -> None:
    cv2.setNumThreads(1)
    print(f"OpenCV {cv2.__version__}, NumPy {np.__version__}, one core\n")
    predictions = config.predictions or delay(config.annotations, folder)
    rows, taken = [], []
    for masks in sorted(path for path in predictions.iterdir() if path.is_dir()):
        parts = {part: partial(score, config.annotations / masks.name, masks) for part, score in RUNS.items()}
        seconds, means = rounds(parts, _ROUNDS)
        taken.append([min(seconds[part]) for part in RUNS])
        ours, *others = means.values()
        differences = [f"{np.abs(theirs - ours).max():.0e}" for theirs in others]
        rows.append(row(f"{masks.name}, {ours.shape[1]} objects", taken[-1], differences))
    rows.append(row("all", np.sum(taken, axis=0).tolist(), ["", ""]))
    columns = [name for part in list(RUNS)[1:] for name in (f"{part} s", "times ours", "difference")]
    print_table(["sequence", "PatchBench s", *columns], rows)


if __name__ == "__main__":
    run("davis_scores", BenchmarkConfig, benchmark)
