"""Plots of a segmentation: the image, its ground truth and the prediction in ADE20K's colours, and what the colours mean.

Shapes: H x W pixels, K classes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.registry import HOOKS
from PIL import Image, ImageDraw

import eval.openmmlab.operators  # noqa: F401 - before anything of mmseg

# isort: split
from mmseg.datasets.ade import ADE20KDataset

from eval.drawing import Picture, side_by_side
from eval.openmmlab.plots import PredictionsHook
from eval.segmentation.items import class_scores
from eval.segmentation.metric import CLASSES, IGNORED_LABEL, compute_metrics, count_pixels

Labels = npt.NDArray[np.uint8]
LegendEntry = tuple[tuple[int, ...], str]
"""RGB of a colour, and what it means."""

LONG_SIDE = 512
"""Longer side of a panel in pixels."""
GAP = 4
"""Pixels between panels."""
UNLABELLED_COLOUR = (0, 0, 0)
"""Black, which no class has."""

_LEGEND_COLUMN = 190
_LEGEND_ROW = 18
_SWATCH = 12


# ADE20K's colours (two of the 150 are the same), black for unlabelled pixels.
_PALETTE_256x3 = np.zeros((256, 3), np.uint8)
_PALETTE_256x3[: len(CLASSES)] = ADE20KDataset.METAINFO["palette"]
_PALETTE_256x3[IGNORED_LABEL] = UNLABELLED_COLOUR


def draw_segmentation(image: Picture, truth_HW: Labels, prediction_HW: Labels, name: str) -> Image.Image:
    """Draw the three panels above the legend.

    Args:
        image: [H, W, 3].
        truth_HW: Class indices, 255 for unlabelled pixels.
        prediction_HW: Class indices.
        name: Title of the image.
    """
    height, width = truth_HW.shape
    scale = LONG_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    # Labels are resized as they are: colours between two classes would be a third one's.
    maps = [np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)) for labels in (truth_HW, prediction_HW)]
    counts_3K = count_pixels(torch.from_numpy(prediction_HW), torch.from_numpy(truth_HW), len(CLASSES))
    metrics = compute_metrics(counts_3K)
    right = f"{metrics['aAcc']:.1f} % of the labelled pixels right"
    titles = [name, "ground truth", f"prediction: {right}, mIoU {metrics['mIoU']:.1f}"]
    panels = side_by_side([resized, *(_PALETTE_256x3[labels] for labels in maps)], titles, size[0], GAP)
    return _with_legend(panels, _legend(truth_HW, prediction_HW, class_scores(counts_3K[None].numpy()).iou_RK[0]))


def _legend(truth_HW: Labels, prediction_HW: Labels, iou_K: npt.NDArray[np.float64]) -> list[LegendEntry]:
    """An entry for every class of the ground truth by its area, then those that are only predicted."""
    areas_truth, areas_prediction = (np.bincount(labels.ravel(), minlength=256) for labels in (truth_HW, prediction_HW))
    present = np.flatnonzero(areas_truth[: len(CLASSES)] + areas_prediction[: len(CLASSES)]).tolist()
    present.sort(key=lambda index: (areas_truth[index], areas_prediction[index]), reverse=True)
    entries = []
    for index in present:
        iou = "" if math.isnan(iou_K[index]) else f" {iou_K[index]:.0f}"
        entries.append((tuple(_PALETTE_256x3[index].tolist()), CLASSES[index] + iou))
    if areas_truth[IGNORED_LABEL]:
        entries.append((UNLABELLED_COLOUR, "unlabelled"))
    return entries


def _with_legend(panels: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    columns = max(1, panels.width // _LEGEND_COLUMN)
    rows = 1 + math.ceil(len(entries) / columns)
    canvas = Image.new("RGB", (panels.width, panels.height + rows * _LEGEND_ROW + 4), "white")
    canvas.paste(panels, (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((4, panels.height + 3), "Classes by area in the ground truth, with their IoU in this image (%)", fill="black")
    for number, (colour, text) in enumerate(entries):
        left = 4 + number % columns * _LEGEND_COLUMN
        top = panels.height + (1 + number // columns) * _LEGEND_ROW
        draw.rectangle((left, top + 2, left + _SWATCH, top + 2 + _SWATCH), fill=colour)
        draw.text((left + _SWATCH + 5, top + 2), text, fill="black")
    return canvas


@HOOKS.register_module()
class SegmentationPlots(PredictionsHook):
    """Draws segmentations beside their ground truth."""

    def draw(self, image: Picture, sample: Any) -> Image.Image:
        """Draw one sample of mmseg."""
        truth_HW, prediction_HW = (
            element.data.squeeze(0).numpy().astype(np.uint8) for element in (sample.gt_sem_seg, sample.pred_sem_seg)
        )
        return draw_segmentation(image, truth_HW, prediction_HW, Path(sample.img_path).name)
