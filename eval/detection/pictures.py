"""Pictures of detections: the ground truth beside the prediction, with boxes, masks, class names and scores.

Shapes: H x W pixels, N instances.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from mmengine.registry import HOOKS
from PIL import Image, ImageDraw, ImageFont

from eval.drawing import Picture, overlay, side_by_side
from eval.openmmlab.pictures import PicturesHook

Colour = tuple[int, int, int]
"""RGB."""
Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""

LONG_SIDE = 640
"""Of a panel in pixels."""
GAP = 4
"""Pixels between panels."""
SCORE_SHOWN = 0.5
"""Predictions above it are drawn."""
BEST_SHOWN = 5
"""So many are drawn where none is."""
MATCHING_IOU = 0.5
"""A prediction that overlaps an instance of its class by so much is right."""
CROWD_COLOUR: Colour = (150, 150, 150)
_WRONG: Colour = (0, 0, 0)

_FONT_SIZE = 12
_HUE_STEP = 0.618  # the golden ratio: hues that follow each other lie far apart, and none repeats
_SHADES = ((0.85, 1.0), (1.0, 0.75), (0.55, 0.95))  # saturation and value, in turn


class Instance(NamedTuple):
    """One object to draw."""

    name: str
    """Of its class."""
    box: Rectangle
    """In pixels of the image."""
    mask_HW: npt.NDArray[np.bool_]
    """Of the image's size."""
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
            (not truth[index].crowd, _overlap(prediction.box, truth[index]), index)
            for index in free
            if truth[index].name == prediction.name
        ]
        best = max((entry for entry in overlaps if entry[1] >= MATCHING_IOU), default=None)
        matches.append(None if best is None else best[2])
        if best is not None and not truth[best[2]].crowd:
            free.discard(best[2])
    return matches


def _overlap(box: Rectangle, instance: Instance) -> float:
    """Intersection over union with an object; over the box's own area with a crowd."""
    shared, area = _intersection(box, instance.box), _area(box)
    whole = area if instance.crowd else area + _area(instance.box) - shared
    return shared / whole if whole > 0 else 0.0


def _intersection(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _area(box: Rectangle) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def draw_detections(image: Picture, truth: Sequence[Instance], predictions: Sequence[Instance], name: str) -> Image.Image:
    """Both panels.

    A right prediction has the colour of its instance, and grey in a crowd, where it does not count; the name of a wrong one
    stands on black.

    Args:
        image: [H, W, 3].
        truth: Crowds included.
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
    height, width = image.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    labels = np.zeros((size[1], size[0]), np.int64)
    # Small ones lie over large ones.
    for index in sorted(range(len(instances)), key=lambda index: -int(instances[index].mask_HW.sum())):
        mask = Image.fromarray(instances[index].mask_HW).resize(size, Image.Resampling.NEAREST)
        labels[np.asarray(mask)] = index + 1
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    palette = np.array([(0, 0, 0), *colours], np.uint8)
    canvas = Image.fromarray(overlay(resized, labels, palette))
    boxes = [_scaled(instance.box, scale) for instance in instances]
    draw = ImageDraw.Draw(canvas)
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(box, outline=colour, width=2)
    _draw_labels(canvas, boxes, [_label(instance) for instance in instances], grounds)
    return np.asarray(canvas)


def _scaled(box: Rectangle, scale: float) -> Rectangle:
    left, top, right, bottom = (scale * value for value in box)
    return left, top, right, bottom


def _label(instance: Instance) -> str:
    if instance.crowd:
        return f"{instance.name} (crowd)"
    return instance.name if instance.score is None else f"{instance.name} {instance.score:.2f}"


def _draw_labels(canvas: Image.Image, boxes: Sequence[Rectangle], labels: Sequence[str], grounds: Sequence[Colour]) -> None:
    """Each label at the first free place near its box."""
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT_SIZE)
    taken: list[Rectangle] = []
    for box, label, ground in zip(boxes, labels, grounds, strict=True):
        width, height = draw.textlength(label, font) + 4, _FONT_SIZE + 4
        place = _free_place(box, width, height, canvas.size, taken)
        taken.append(place)
        draw.rectangle(place, fill=ground)
        dark = sum(weight * value for weight, value in zip((0.3, 0.6, 0.1), ground, strict=True)) < 130
        draw.text((place[0] + 2, place[1] + 1), label, fill="white" if dark else "black", font=font)


def _free_place(box: Rectangle, width: float, height: float, size: tuple[int, int], taken: Sequence[Rectangle]) -> Rectangle:
    """Where a label goes: above its box, or further down where others lie already; the first place where all are taken."""
    left = max(0.0, min(box[0], size[0] - width - 1))
    tops = [max(0.0, min(box[1] - height + step * height, size[1] - height - 1)) for step in range(6)]
    places = [(left, top, left + width, top + height) for top in tops]
    return next((place for place in places if not any(_intersection(place, other) for other in taken)), places[0])


def _colour(index: int) -> Colour:
    """Distinct colours, one after the other."""
    saturation, value = _SHADES[index % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(index * _HUE_STEP % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@HOOKS.register_module()
class DetectionPictures(PicturesHook):
    """See `draw_detections`."""

    def __init__(self, folder: str, count: int, classes: Sequence[str]) -> None:
        """Remember the names.

        Args:
            folder: See `PicturesHook`.
            count: See `PicturesHook`.
            classes: Names by label: the categories of the annotation file, in its order.
        """
        super().__init__(folder, count)
        self.classes = list(classes)

    def draw(self, image: Picture, sample: Any) -> Image.Image:
        """See `PicturesHook.draw`."""
        truth = self._instances(sample.gt_instances) + self._instances(sample.ignored_instances, crowd=True)
        return draw_detections(image, truth, self._instances(sample.pred_instances), Path(sample.img_path).name)

    def _instances(self, data: Any, crowd: bool = False) -> list[Instance]:
        """From mmdet's form. Labels that the annotation file has no name for cannot count and are left out, as in the scoring."""
        masks_NHW = np.asarray(getattr(data.masks, "masks", data.masks), dtype=bool)
        scores = data.scores.tolist() if "scores" in data else [None] * len(data)
        rows = zip(data.labels.tolist(), _plain_boxes(data.bboxes), masks_NHW, scores, strict=True)
        return [
            Instance(self.classes[label], box, mask_HW, score, crowd)
            for label, box, mask_HW, score in rows
            if label < len(self.classes)
        ]


def _plain_boxes(boxes: Any) -> list[Rectangle]:
    """From a tensor [N, 4] or mmdet's wrapper of one."""
    return [tuple(box) for box in getattr(boxes, "tensor", boxes).tolist()]
