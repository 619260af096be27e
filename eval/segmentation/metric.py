"""ADE20K in mmengine: reading its labels, and the metric of the test loop.

Shapes: H x W pixels, K classes. The 3 of a count tensor: intersection, predicted, labelled pixels.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS, TRANSFORMS
from torch import Tensor

import eval.openmmlab.operators  # noqa: F401 - before anything of mmseg

# isort: split
from mmseg.datasets.ade import ADE20KDataset

from common.files import write_atomically, write_text_atomically
from eval.image_checks import PILLOW_ERRORS, label_map
from eval.openmmlab.loading import ImageFileError
from eval.probes.pixels import compute_metrics, count_pixels
from eval.segmentation.data import LARGEST_LABEL, check_data

CLASSES = tuple(name.strip() for name in ADE20KDataset.METAINFO["classes"])  # some of mmseg's names end in a space


@DATASETS.register_module()
class ListedADE20K(ADE20KDataset):
    """mmseg's ADE20K of the files that the data check listed; mmseg itself would also take those in folders below, and `.JPG` not."""

    def load_data_list(self) -> list[dict[str, Any]]:
        split = Path(self.data_prefix["img_path"]).name
        fixed = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}
        pairs = check_data(Path(self.data_root))[split].pairs.values()
        return [{"img_path": str(image), "seg_map_path": str(labels), **fixed} for image, labels in pairs]


@TRANSFORMS.register_module()
class ReadLabels(BaseTransform):
    """Reads a label map of ADE20K; 0 (unlabelled) becomes 255, 1 to 150 become 0 to 149.

    mmseg's `LoadAnnotations` would keep the lower 8 bits of labels of 16, and take 255 for unlabelled.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map`; `results` has `seg_map_path`, and `ori_shape` of the image."""
        path, size = results["seg_map_path"], tuple(results["ori_shape"])
        try:
            labels_HW = label_map(path)
        except PILLOW_ERRORS as error:  # for a PNG that breaks off or is none
            raise ImageFileError(f"{path}: not a readable label map ({error}); copy it again") from error
        if labels_HW.shape != size:
            raise ImageFileError(f"{path}: label map of shape {labels_HW.shape} for an image of {size}")
        foreign = labels_HW[(labels_HW < 0) | (labels_HW > LARGEST_LABEL)]
        if foreign.size:
            found = ", ".join(map(str, np.unique(foreign).tolist()[:5]))
            raise ImageFileError(f"{path}: labels {found}; ADE20K's are 0 (unlabelled) and 1 to {LARGEST_LABEL}")
        # In 8 bits, 0 - 1 is 255.
        return {**results, "gt_seg_map": labels_HW.astype(np.uint8) - np.uint8(1), "seg_fields": ["gt_seg_map"]}


@METRICS.register_module()
class PixelCounts(BaseMetric):
    """Sums the pixel counts of all images, on every process, and reports mIoU, aAcc and mAcc in percent, unrounded."""

    def __init__(self, output_file: str, items_file: str) -> None:
        """Say where to write the counts, from which every metric follows.

        `output_file` is JSON: class -> [intersection, predicted, labelled] in pixels. `items_file` is an .npz file with those of
        every image, for a bootstrap over images: `names` [N] of the images, ascending, and `counts` int32 [N, 3, K].
        """
        super().__init__()
        self.output_file = Path(output_file)
        self.items_file = Path(items_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count the pixels of one batch; the samples have `pred_sem_seg` and `gt_sem_seg`, each [1, H, W]."""
        for sample in data_samples:
            predictions_HW = sample["pred_sem_seg"]["data"].squeeze(0)
            labels_HW = sample["gt_sem_seg"]["data"].squeeze(0).to(predictions_HW.device)
            counts_3K = count_pixels(predictions_HW, labels_HW, len(CLASSES))
            self.results.append((Path(sample["seg_map_path"]).stem, counts_3K))

    def compute_metrics(self, results: list[tuple[str, Tensor]]) -> dict[str, Any]:
        per_image = dict(sorted(results))
        counts_N3K = torch.stack(list(per_image.values()))
        counts_3K = counts_N3K.sum(dim=0)
        arrays: dict[str, Any] = {"names": np.array(list(per_image)), "counts": counts_N3K.numpy().astype(np.int32)}
        write_atomically(self.items_file, partial(np.savez_compressed, **arrays))
        table = dict(zip(CLASSES, counts_3K.T.tolist(), strict=True))
        write_text_atomically(self.output_file, json.dumps(table, indent=1) + "\n")
        metrics, per_class = compute_metrics(counts_3K)
        return {**metrics, "breakdown": dict(zip(CLASSES, per_class, strict=True))}
