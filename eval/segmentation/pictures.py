"""Pictures of a segmentation: the image, its ground truth and the prediction in ADE20K's colours, and what the colours mean.

Shapes: H x W pixels, K classes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from mmengine.registry import HOOKS
from mmseg.datasets.ade import ADE20KDataset
from PIL import Image, ImageDraw

from eval.drawing import Picture, side_by_side
from eval.openmmlab.pictures import PicturesHook
from eval.segmentation.figures import IGNORED_LABEL, compute_figures, count_pixels

Labels = npt.NDArray[np.uint8]

LONG_SIDE = 512
"""Of a panel in pixels."""
GAP = 4
"""Pixels between panels."""
CLASSES = tuple(name.strip() for name in ADE20KDataset.METAINFO["classes"])
UNLABELLED_COLOUR = (0, 0, 0)
"""No class has it."""

_LEGEND_COLUMN = 190
_LEGEND_ROW = 18
_SWATCH = 12


def palette() -> npt.NDArray[np.uint8]:
    """RGB [256, 3]: ADE20K's colours, black for unlabelled pixels. Two of its 150 colours are the same."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(CLASSES)] = ADE20KDataset.METAINFO["palette"]
    colours[IGNORED_LABEL] = UNLABELLED_COLOUR
    return colours


_PALETTE_256x3 = palette()


class LegendEntry(NamedTuple):
    """One colour of a picture."""

    colour: tuple[int, ...]
    """RGB."""
    text: str
    """What it stands for."""


def draw_segmentation(image: Picture, truth_HW: Labels, prediction_HW: Labels, name: str) -> Image.Image:
    """The three panels above the legend.

    Args:
        image: [H, W, 3].
        truth_HW: Class indices, 255 for unlabelled pixels.
        prediction_HW: Class indices.
        name: Title of the image.
    """
    height, width = truth_HW.shape
    scale = LONG_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photograph = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    # Labels are resized as they are: colours between two classes would be a third one's.
    maps = [np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)) for labels in (truth_HW, prediction_HW)]
    counts_3K = count_pixels(torch.from_numpy(prediction_HW), torch.from_numpy(truth_HW), len(CLASSES))
    figures = compute_figures(counts_3K)
    titles = [name, "ground truth", f"prediction: {figures.aacc:.1f} % of the labelled pixels right, mIoU {figures.miou:.1f}"]
    panels = side_by_side([photograph, *(_PALETTE_256x3[labels] for labels in maps)], titles, size[0], GAP)
    return _with_legend(panels, _legend(truth_HW, prediction_HW, figures.iou_K.tolist()))


def _legend(truth_HW: Labels, prediction_HW: Labels, iou_K: Sequence[float]) -> list[LegendEntry]:
    """Every class of the ground truth by its area, then those that are only predicted."""
    areas_truth, areas_prediction = (np.bincount(labels.ravel(), minlength=256) for labels in (truth_HW, prediction_HW))
    present = np.flatnonzero(areas_truth[: len(CLASSES)] + areas_prediction[: len(CLASSES)]).tolist()
    present.sort(key=lambda index: (areas_truth[index], areas_prediction[index]), reverse=True)
    entries = []
    for index in present:
        iou = "" if math.isnan(iou_K[index]) else f" {iou_K[index]:.0f}"
        entries.append(LegendEntry(tuple(_PALETTE_256x3[index].tolist()), CLASSES[index] + iou))
    if areas_truth[IGNORED_LABEL]:
        entries.append(LegendEntry(UNLABELLED_COLOUR, "unlabelled"))
    return entries


def _with_legend(panels: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    columns = max(1, panels.width // _LEGEND_COLUMN)
    rows = 1 + math.ceil(len(entries) / columns)
    canvas = Image.new("RGB", (panels.width, panels.height + rows * _LEGEND_ROW + 4), "white")
    canvas.paste(panels, (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((4, panels.height + 3), "Classes by area in the ground truth, with their IoU in this image (%)", fill="black")
    for number, entry in enumerate(entries):
        left = 4 + number % columns * _LEGEND_COLUMN
        top = panels.height + (1 + number // columns) * _LEGEND_ROW
        draw.rectangle((left, top + 2, left + _SWATCH, top + 2 + _SWATCH), fill=entry.colour)
        draw.text((left + _SWATCH + 5, top + 2), entry.text, fill="black")
    return canvas


@HOOKS.register_module()
class SegmentationPictures(PicturesHook):
    """See `draw_segmentation`."""

    def draw(self, image: Picture, sample: Any) -> Image.Image:
        """See `PicturesHook.draw`."""
        truth_HW, prediction_HW = (
            element.data.squeeze(0).numpy().astype(np.uint8) for element in (sample.gt_sem_seg, sample.pred_sem_seg)
        )
        return draw_segmentation(image, truth_HW, prediction_HW, Path(sample.img_path).name)
