"""The figures of `eval.segmentation.figures` as a metric of mmengine's test loop."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch import Tensor

from common.files import write_atomically, write_text_atomically
from eval.segmentation.figures import compute_figures, count_pixels


@METRICS.register_module()
class PixelCounts(BaseMetric):
    """Sums the pixel counts of all images, on every process, and reports mIoU, aAcc and mAcc in percent, unrounded."""

    def __init__(self, output_file: str | None = None, items_file: str | None = None, **kwargs: Any) -> None:
        """Store where to write.

        Args:
            output_file: JSON file for the counts, from which every figure follows: class -> [intersection, predicted, labelled]
                in pixels. None writes none.
            items_file: .npz file for the same counts of every single image, see `write_image_counts`. None writes none.
            kwargs: For mmengine's BaseMetric.
        """
        super().__init__(**kwargs)
        self.output_file = output_file
        self.items_file = items_file

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count the pixels of one batch.

        Args:
            data_batch: Unused; mmengine hands it over.
            data_samples: With `pred_sem_seg` and `gt_sem_seg`, each [1, H, W].
        """
        del data_batch
        for sample in data_samples:
            predictions_HW = sample["pred_sem_seg"]["data"].squeeze(0)
            labels_HW = sample["gt_sem_seg"]["data"].squeeze(0).to(predictions_HW.device)
            try:
                counts_3K = count_pixels(predictions_HW, labels_HW, len(self.dataset_meta["classes"]))
            except ValueError as error:
                raise ValueError(f"{sample['seg_map_path']}: {error}") from error
            self.results.append((Path(sample["seg_map_path"]).stem, counts_3K))

    def compute_metrics(self, results: list[tuple[str, Tensor]]) -> dict[str, float]:
        """The figures over the counts of all processes; writes the files."""
        counts_3K = torch.stack([counts_3K for _, counts_3K in results]).sum(dim=0)
        if self.items_file is not None:
            write_image_counts(Path(self.items_file), dict(results))
        if self.output_file is not None:
            write_counts(Path(self.output_file), self.dataset_meta["classes"], counts_3K)
        figures = compute_figures(counts_3K)
        return {"mIoU": figures.miou, "aAcc": figures.aacc, "mAcc": figures.macc}


def write_counts(path: Path, classes: Sequence[str], counts_3K: Tensor) -> None:
    """Write pixel counts per class as JSON, atomically."""
    # Some of mmseg's class names end in a space.
    table = {name.strip(): column for name, column in zip(classes, counts_3K.T.tolist(), strict=True)}
    write_text_atomically(path, json.dumps(table, indent=1) + "\n")


def write_image_counts(path: Path, counts: Mapping[str, Tensor]) -> None:
    """Write every image's counts as a compressed .npz, atomically: what a bootstrap over images needs.

    `names` [N] of the images, ascending, and `counts` int32 [N, 3, K]: intersection, predicted and labelled pixels per class.
    """
    names = sorted(counts)
    counts_N3K = torch.stack([counts[name] for name in names]).numpy().astype(np.int32)
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, names=np.array(names), counts=counts_N3K))


def read_counts(path: Path) -> tuple[list[str], Tensor]:
    """The inverse of `write_counts`: class names and int64 counts [3, K]."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return list(table), torch.tensor(list(table.values())).T
