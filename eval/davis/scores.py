"""`python -m eval.davis.scores`: J&F of anybody's predictions, equal to the official evaluation's.

Imports no torch, so that it starts at once, here and in each process of `--jobs`.
"""

import csv
import io
import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.command import parse_config, run_command
from common.files import write_text_atomically
from eval.davis.dataset import ALL_SEQUENCES, DavisSplit, image_set_path, read_image_set
from eval.davis.measures import ScoringError, measure_sequence
from eval.davis.official import compare_with_official
from eval.davis.summary import GLOBAL_FIGURES, Scores, summarise

logger = logging.getLogger(__name__)

PER_SEQUENCE_FIGURES = ("J-Mean", "F-Mean")
"""Columns of the official per-sequence file."""


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """Score masks by the semi-supervised rules of DAVIS and write the two CSV files of the official evaluation."""

    annotations: Path
    """DAVIS folder, or a folder with one folder of masks per sequence, such as DAVIS/Annotations/480p."""
    predictions: Path
    """Folder with one folder of masks per sequence, named as the annotations are."""
    output: Path
    """Folder for global_results-SPLIT.csv and per-sequence_results-SPLIT.csv; older ones are replaced, never read."""
    split: str = "val"
    """List in ImageSets; `all`, or where there is no ImageSets: every folder of annotations."""
    year: Literal["2016", "2017"] = "2017"
    """2016: all objects count as one."""
    resolution: str = "480p"
    """Folder below Annotations, if `annotations` is a DAVIS folder."""
    sequences: str = ""
    """Only these sequences, separated by commas."""
    jobs: int = 0
    """Processes; 0: one per core."""
    official: bool = False
    """Score with the official package (requirements-official.txt) as well, and fail if any figure differs."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        if self.jobs < 0:
            raise ValueError(f"jobs={self.jobs} must be at least 0")
        if self.official and self.year != "2017":
            raise ValueError(f"official=True and year={self.year}: the official package scores year 2017 only")


def score_sequences(
    names: Sequence[str], annotations: Path, predictions: Path, one_object: bool = False, jobs: int = 1
) -> Scores:
    """Score sequences, each in a process of its own where there are several jobs.

    Args:
        names: Which; the figures do not depend on their order.
        annotations: Folder with one folder of masks per sequence.
        predictions: The same for the predictions.
        one_object: Whether all objects count as one, as in DAVIS-2016.
        jobs: Processes; 0: one per core.

    Raises:
        ValueError: If a folder or mask is missing or damaged, or does not fit; the message names it.
    """
    for folder in (annotations, predictions):
        if not folder.is_dir():
            raise ScoringError(f"{folder}: no such folder")
        if missing := [name for name in names if not (folder / name).is_dir()]:
            raise ScoringError(f"{folder / missing[0]}: no such folder ({len(missing)} of {len(names)} sequences are missing)")
    tasks = [(annotations / name, predictions / name, one_object) for name in names]
    workers = min(jobs or _usable_cores(), len(tasks))
    if workers <= 1:
        return summarise([measure_sequence(*task) for task in tasks])
    # Workers are new processes, not forks: a fork of a process with threads (torch's, OpenCV's) may hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return summarise(list(pool.map(measure_sequence, *zip(*tasks, strict=True))))


def write_csv_files(folder: Path, split: str, scores: Scores) -> tuple[Path, Path]:
    """Write the two files of the official evaluation, in full precision (the official ones have three decimals).

    Returns:
        Paths of the global and of the per-sequence file.
    """
    overall, per_sequence = folder / f"global_results-{split}.csv", folder / f"per-sequence_results-{split}.csv"
    write_text_atomically(overall, _csv_text(GLOBAL_FIGURES, [[scores.overall[name] for name in GLOBAL_FIGURES]]))
    rows: list[list[str | float]] = [
        [name, *(figures[column] for column in PER_SEQUENCE_FIGURES)] for name, figures in scores.per_object.items()
    ]
    write_text_atomically(per_sequence, _csv_text(("Sequence", *PER_SEQUENCE_FIGURES), rows))
    return overall, per_sequence


def score(config: ScoresConfig) -> Scores:
    """Score what a config names and write the CSV files.

    Raises:
        ValueError: As `score_sequences` and `compare_with_official`, or if a list of sequences is missing.
    """
    folder, names = _chosen(config)
    logger.info("%d sequences of %s", len(names), folder)
    scores = score_sequences(names, folder, config.predictions, config.year == "2016", config.jobs)
    if config.official:
        compare_with_official(scores, names, folder, config.predictions)
        logger.info("the official evaluation has the same figures")
    write_csv_files(config.output, config.split, scores)
    return scores


def _chosen(config: ScoresConfig) -> tuple[Path, list[str]]:
    """The folder of annotations, and the sequences."""
    split = DavisSplit.from_options(config.annotations, config.split, config.year, config.resolution, config.sequences)
    if (config.annotations / "Annotations").is_dir():
        folder = split.masks_folder
    else:
        # DAVIS/Annotations/480p: the lists lie beside Annotations.
        folder = config.annotations
        resolved = folder.resolve()
        split = DavisSplit.from_options(resolved.parent.parent, split.split, split.year, resolved.name, config.sequences)
    if not folder.is_dir():
        raise ScoringError(f"{folder}: no such folder of annotations")
    if split.split == ALL_SEQUENCES or not (split.root / "ImageSets").is_dir():
        known = sorted(path.name for path in folder.iterdir() if path.is_dir())
    else:
        known = read_image_set(image_set_path(split))
    if unknown := [name for name in split.sequences if name not in known]:
        raise ScoringError(f"{folder}: no annotations of sequence {', '.join(unknown)} in split {split.split!r}")
    names = [name for name in known if not split.sequences or name in split.sequences]
    if not names:
        raise ScoringError(f"{folder}: no sequences to score")
    return folder, names


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux only; sees the cores that a container or a Slurm job may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _csv_text(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def main(argv: Sequence[str]) -> int:
    """Parse, score, show."""
    scores = score(parse_config(ScoresConfig, "python -m eval.davis.scores", argv))
    print(_csv_text(GLOBAL_FIGURES, [[scores.overall[name] for name in GLOBAL_FIGURES]]), end="")  # noqa: T201 - the output
    return 0


if __name__ == "__main__":
    run_command(main)
