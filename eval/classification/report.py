"""From ranks to the figures of a result and a table of predictions."""

import csv
from collections.abc import Mapping
from pathlib import Path

from common.files import write_atomically
from eval.classification.config import ClassificationConfig
from eval.classification.images import LabelledImages
from eval.classification.linear import ProbeOutcome
from eval.classification.scores import Ranks, accuracy, accuracy_per_class
from eval.result import Metric

PREDICTIONS_FILE = "predictions.csv"

_PERCENT = 100
_TOPS = (1, 5)


def named_ranks(knn: Mapping[int, Ranks], probe: ProbeOutcome | None, config: ClassificationConfig) -> dict[str, Ranks]:
    """Every classifier's ranks by its name: `20-NN`, `linear` for the first learning rate, `linear (rate 0.01)` for others."""
    named = {f"{k}-NN": ranks for k, ranks in knn.items()}
    if probe is not None:
        for number, (rate, ranks) in enumerate(zip(config.learning_rates, probe.ranks, strict=True)):
            named[f"linear (rate {rate:g})" if number else "linear"] = ranks.numpy()
    return named


def metrics_of(named: Mapping[str, Ranks], probe: ProbeOutcome | None, num_classes: int, seed: int) -> dict[str, Metric]:
    """Top-1 and top-5 of every classifier with 95 % intervals; no top-5 where every answer would be right.

    `linear top-1, best epoch` is what DINO's script prints: the highest test accuracy of all epochs, for the first learning rate.
    """
    metrics = {}
    for name, ranks in named.items():
        for top in _TOPS:
            if top < num_classes:
                found = accuracy(ranks, top, seed)
                metrics[f"{name} top-{top}"] = Metric(value=found.percent, interval_95=list(found.interval_95))
    if probe is not None:
        best = max(shares[0] for shares in probe.top1)
        metrics["linear top-1, best epoch"] = Metric(value=_PERCENT * best)
    return metrics


def breakdown_of(named: Mapping[str, Ranks], images: LabelledImages) -> dict[str, dict[str, float]]:
    """Top-1 accuracy of every class."""
    columns = {name: accuracy_per_class(ranks, images.labels, len(images.classes)) for name, ranks in named.items()}
    return {
        class_name: {f"{name} top-1": float(values[number]) for name, values in columns.items()}
        for number, class_name in enumerate(images.classes)
    }


def write_predictions(folder: Path, named: Mapping[str, Ranks], images: LabelledImages) -> Path:
    """Write for every test image, in the same order for every backbone, how many classes each classifier ranks before the right one.

    What compares two backbones pairs these by image.
    """
    path = folder / PREDICTIONS_FILE

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["image", "class", *(f"{name} rank" for name in named)])
            for number, (image, label) in enumerate(zip(images.names, images.labels, strict=True)):
                writer.writerow([image, images.classes[label], *(int(ranks[number]) for ranks in named.values())])

    write_atomically(path, write)
    return path
