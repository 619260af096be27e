"""Plots of detections: the ground truth beside the prediction, with boxes, masks, class names and scores.

Shapes: H x W pixels, N instances.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from mmengine.registry import HOOKS
from PIL import Image
from torchvision.ops import box_iou
from torchvision.utils import draw_bounding_boxes

from eval.drawing import Picture, overlay, side_by_side
from eval.openmmlab.plots import PredictionsHook

Colour = tuple[int, int, int]
"""RGB."""

LONG_SIDE = 640
"""Longer side of a panel in pixels."""
GAP = 4
"""Pixels between panels."""
SCORE_SHOWN = 0.5
"""Predictions above it are drawn."""
BEST_SHOWN = 5
"""How many are drawn where none is above it."""
MATCHING_IOU = 0.5
"""A prediction that overlaps an instance of its class at least so much is right."""
CROWD_COLOUR: Colour = (150, 150, 150)
_WRONG: Colour = (0, 0, 0)

_HUE_STEP = 0.618  # the golden ratio: hues that follow each other lie far apart, and none repeats
_SHADES = ((0.85, 1.0), (1.0, 0.75), (0.55, 0.95))  # saturation and value, in turn


class Instance(NamedTuple):
    """One object to draw."""

    name: str
    """Name of its class."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the image."""
    mask_HW: npt.NDArray[np.bool_]
    score: float | None = None
    """None in the ground truth."""
    crowd: bool = False
    """A group that the annotators did not divide; predictions on it do not count."""


def select(predictions: Sequence[Instance]) -> tuple[list[Instance], str]:
    """The predictions that are drawn, best first, and a title that says which these are."""
    ranked = sorted(predictions, key=lambda instance: instance.score or 0.0, reverse=True)
    confident = [instance for instance in ranked if (instance.score or 0.0) > SCORE_SHOWN]
    if not ranked:
        return [], "prediction: nothing"
    if confident:
        return confident, f"prediction: {len(confident)} with a score above {SCORE_SHOWN}"
    best = ranked[:BEST_SHOWN]
    return best, f"prediction: the best {len(best)}, none with a score above {SCORE_SHOWN}"


def match(predictions: Sequence[Instance], truth: Sequence[Instance]) -> list[int | None]:
    """For each prediction, best first, the instance of its class that its box overlaps most, by COCO's rules for one threshold.

    An instance is given once, where the intersection over union reaches `MATCHING_IOU`; failing that, a crowd as often as
    predictions lie in it with this part of their area; failing that, None.
    """
    free = set(range(len(truth)))
    matches: list[int | None] = []
    for prediction in predictions:
        overlaps = [
            (not truth[index].crowd, _overlap(prediction, truth[index]), index)
            for index in free
            if truth[index].name == prediction.name
        ]
        best = max((entry for entry in overlaps if entry[1] >= MATCHING_IOU), default=None)
        matches.append(None if best is None else best[2])
        if best is not None and not truth[best[2]].crowd:
            free.discard(best[2])
    return matches


def _overlap(prediction: Instance, instance: Instance) -> float:
    """Intersection over union with an object; over the prediction's own area with a crowd."""
    box, other = prediction.box, instance.box
    if instance.crowd:  # its part inside the prediction has the same intersection, and no area outside
        other = (max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3]))
        if other[0] >= other[2] or other[1] >= other[3]:
            return 0.0
    return float(torch.nan_to_num(box_iou(torch.tensor([box]), torch.tensor([other]))))


def draw_detections(image: Picture, truth: Sequence[Instance], predictions: Sequence[Instance], name: str) -> Image.Image:
    """Draw both panels.

    A right prediction has the colour of its instance, and grey in a crowd, where it does not count; the name of a wrong one is
    written on black.

    Args:
        image: [H, W, 3].
        truth: The annotations, crowds included.
        predictions: All of them.
        name: Title of the image.
    """
    shown, title = select(predictions)
    matches = match(shown, truth)
    own = [CROWD_COLOUR if instance.crowd else _colour(index) for index, instance in enumerate(truth)]
    given = [_colour(len(truth) + index) if found is None else own[found] for index, found in enumerate(matches)]
    grounds = [_WRONG if index is None else own[index] for index in matches]
    count = sum(not instance.crowd for instance in truth)
    right = sum(index is not None and not truth[index].crowd for index in matches)
    panels = [draw_instances(image, truth, own, own), draw_instances(image, shown, given, grounds)]
    titles = [
        f"{name}, ground truth: {count} instances",
        f"{title}; {right} right, in their colours; wrong ones on black" if shown else title,
    ]
    return side_by_side(panels, titles, panels[0].shape[1], GAP)


def draw_instances(
    image: Picture, instances: Sequence[Instance], colours: Sequence[Colour], grounds: Sequence[Colour]
) -> Picture:
    """The image, enlarged or reduced to `LONG_SIDE`, with instances in the colours given, their names on `grounds`."""
    scale = LONG_SIDE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    labels_HW = np.zeros((height, width), np.int64)
    # Small ones are drawn over large ones.
    for index in sorted(range(len(instances)), key=lambda index: -int(instances[index].mask_HW.sum())):
        mask = Image.fromarray(instances[index].mask_HW).resize((width, height), Image.Resampling.NEAREST)
        labels_HW[np.asarray(mask)] = index + 1
    canvas = torch.from_numpy(overlay(resized, labels_HW, np.array([(0, 0, 0), *colours], np.uint8))).permute(2, 0, 1)
    if instances:
        canvas = draw_bounding_boxes(
            canvas,
            scale * torch.tensor([instance.box for instance in instances]),
            [_label(instance) for instance in instances],
            list(colours),
            width=2,
            label_colors=["white" if sum(ground) < 380 else "black" for ground in grounds],
            label_background_colors=list(grounds),
            fill_labels=True,
        )
    return canvas.permute(1, 2, 0).numpy()


def _label(instance: Instance) -> str:
    if instance.crowd:
        return f"{instance.name} (crowd)"
    return instance.name if instance.score is None else f"{instance.name} {instance.score:.2f}"


def _colour(index: int) -> Colour:
    """Distinct colours, one after the other."""
    saturation, value = _SHADES[index % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(index * _HUE_STEP % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@HOOKS.register_module()
class DetectionPlots(PredictionsHook):
    """Draws detections beside their ground truth."""

    def __init__(self, folder: str, count: int, classes: Sequence[str]) -> None:
        """As the base class; `classes` are the names by label: the categories of the annotation file, in its order."""
        super().__init__(folder, count)
        self.classes = list(classes)

    def draw(self, image: Picture, sample: Any) -> Image.Image:
        """Draw one sample of mmdet."""
        truth = self._instances(sample.gt_instances) + self._instances(sample.ignored_instances, crowd=True)
        return draw_detections(image, truth, self._instances(sample.pred_instances), Path(sample.img_path).name)

    def _instances(self, data: Any, crowd: bool = False) -> list[Instance]:
        """From mmdet's form. Labels that the annotation file has no name for cannot count and are left out, as in the scoring."""
        masks_NHW = np.asarray(getattr(data.masks, "masks", data.masks), dtype=bool)
        scores = data.scores.tolist() if "scores" in data else [None] * len(data)
        boxes = getattr(data.bboxes, "tensor", data.bboxes).tolist()  # a tensor [N, 4] or mmdet's wrapper of one
        return [
            Instance(self.classes[label], tuple(box), mask_HW, score, crowd)
            for label, box, mask_HW, score in zip(data.labels.tolist(), boxes, masks_NHW, scores, strict=True)
            if label < len(self.classes)
        ]
