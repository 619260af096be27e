"""`python -m eval.davis.scores`: J&F of anybody's predictions, equal to the official evaluation's.

Source: davisvideochallenge/davis2017-evaluation, `davis2017/utils.py` (`db_statistics`) and `evaluation_method.py`. Loads no torch,
so that it starts at once, here and in each process of `--jobs`.
"""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.cli import parse, run_command
from common.files import lock_folder, write_text_atomically
from eval.davis.config import SequenceOptions
from eval.davis.data import ALL_SEQUENCES, DavisSplit, choose_sequences, image_set_path, read_image_set, sequence_names
from eval.davis.official import compare_with_official
from eval.davis.sets import SETS
from eval.findings import first_few
from eval.image_checks import list_images
from eval.propagation.measures import METRICS, Scores, score_sequences
from eval.propagation.videos import subfolders
from eval.shared import require_at_least

logger = logging.getLogger(__name__)

PER_SEQUENCE_METRICS = ("J-Mean", "F-Mean")  # columns of the official per-sequence file
_PATIENCE = 60  # seconds to wait for another process that writes its scores


@dataclass(frozen=True, kw_only=True)
class ScoresConfig(SequenceOptions):
    """Score masks by the semi-supervised rules of DAVIS and write the two CSV files of the official evaluation."""

    annotations: Path
    """DAVIS folder, or a folder with one folder of masks per sequence, such as DAVIS/Annotations/480p; of another set its folder."""
    predictions: Path  # Folder with one folder of masks per sequence, named as the annotations are.
    output: Path
    """Folder for global_results-SPLIT.csv and per-sequence_results-SPLIT.csv; older ones are replaced, never read."""
    jobs: int = 0  # Processes; 0: one per core.
    official: bool = False
    """Score with the official package (requirements-official.txt) as well, and fail if any metric differs."""

    def __post_init__(self) -> None:
        require_at_least(self, {"jobs": 0})
        if self.official and (self.year, self.dataset) != ("2017", "davis"):
            chosen = f"year={self.year}, dataset={self.dataset}"
            raise ValueError(f"official=True and {chosen}: the official package scores DAVIS of year 2017 only")


def write_csv_files(folder: Path, split: str, scores: Scores) -> tuple[Path, Path]:
    """Write the global and the per-sequence file of the official evaluation, in full precision (theirs has three decimals)."""
    overall, per_sequence = folder / f"global_results-{split}.csv", folder / f"per-sequence_results-{split}.csv"
    write_text_atomically(overall, _csv_text(METRICS, [[scores.overall[name] for name in METRICS]]))
    rows = [(name, *(metrics[column] for column in PER_SEQUENCE_METRICS)) for name, metrics in scores.per_object.items()]
    write_text_atomically(per_sequence, _csv_text(("Sequence", *PER_SEQUENCE_METRICS), rows))
    return overall, per_sequence


def score(config: ScoresConfig) -> Scores:
    """Score what a config names and write the CSV files; ValueError also if the official evaluation has other metrics."""
    folder, names = _chosen(config)
    if folder.resolve() == config.predictions.resolve():
        logger.warning("--predictions %s: these are the annotations themselves, which score 100", config.predictions)
    logger.info("%d sequences of %s", len(names), folder)
    begin_later = config.dataset != "davis"
    scores = score_sequences(names, folder, config.predictions, config.year == "2016", config.jobs, begin_later)
    if config.official:
        compare_with_official(scores.per_object, names, folder, config.predictions)
        logger.info("the official evaluation has the same metrics")
    with lock_folder(config.output, patience=_PATIENCE):  # so that both files are of the same masks
        write_csv_files(config.output, config.split, scores)
    return scores


def _chosen(config: ScoresConfig) -> tuple[Path, list[str]]:
    split = DavisSplit.chosen(config.annotations, config, config.sequences)
    folder = split.masks_folder
    if split.dataset != "davis":
        names = sequence_names(split)
        _require_masks(split, names)
        return folder, names
    if not (config.annotations / "Annotations").is_dir():
        # For DAVIS/Annotations/480p, the lists are beside Annotations.
        folder = config.annotations
        split = replace(split, root=folder.resolve().parent.parent, resolution=folder.resolve().name)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of annotations")
    listed = split.split != ALL_SEQUENCES and (split.root / "ImageSets").is_dir()
    return folder, choose_sequences(split, read_image_set(image_set_path(split)) if listed else subfolders(folder))


def _require_masks(split: DavisSplit, names: Sequence[str]) -> None:
    """ValueError where frames have no mask: with those of beginnings alone, objects would be missed where they are not drawn."""
    for name in names:
        frames, _ = list_images(split.frames_folder / name, ".jpg", split.root)
        masks, _ = list_images(split.masks_folder / name, ".png", split.root)
        if absent := [stem for stem in frames if stem not in masks]:
            server = f"; {SETS[split.dataset].server} scores where masks are withheld"
            raise ValueError(f"{split.masks_folder / name}: no masks of frames {first_few(absent, 3)}{server}")


def _csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def main(argv: Sequence[str]) -> int:
    scores = score(parse(ScoresConfig, argv, "python -m eval.davis.scores"))
    print(_csv_text(METRICS, [[scores.overall[name] for name in METRICS]]), end="")  # noqa: T201 - the output
    return 0


if __name__ == "__main__":
    run_command(main)
