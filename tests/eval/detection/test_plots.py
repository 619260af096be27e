from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from PIL import Image

from eval.detection.plots import (
    CROWD_COLOUR,
    GAP,
    LONG_SIDE,
    DetectionPlots,
    Instance,
    draw_detections,
    draw_instances,
    match,
    select,
)
from eval.drawing import CAPTION_HEIGHT

SIDE = 64
IMAGE = np.full((SIDE // 2, SIDE, 3), 120, np.uint8)


def instance(name: str, left: int, score: float | None = None, crowd: bool = False) -> Instance:
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[8:24, left : left + 16] = True
    return Instance(name, (left, 8, left + 16, 24), mask, score, crowd)


def panels(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(picture)[CAPTION_HEIGHT:]
    return pixels[:, :LONG_SIDE], pixels[:, LONG_SIDE + GAP :]


def test_a_right_prediction_has_its_instances_colour_and_a_wrong_one_has_not() -> None:
    truth = [instance("cat", 4), instance("dog", 40)]
    inside = (160, 120)  # a pixel of the cat, away from contours and names
    right = draw_detections(IMAGE, truth, [instance("cat", 4, 0.9)], "image.jpg")
    wrong = draw_detections(IMAGE, truth, [instance("bird", 4, 0.9)], "image.jpg")
    shifted = draw_detections(IMAGE, truth, [instance("cat", 20, 0.9)], "image.jpg")
    assert right.size == (2 * LONG_SIDE + GAP, LONG_SIDE // 2 + CAPTION_HEIGHT)
    before, after = panels(right)
    assert before[inside].tolist() == after[inside].tolist() != [120, 120, 120]
    for picture in (wrong, shifted):
        truth_panel, prediction_panel = panels(picture)
        assert (truth_panel == before).all()
        assert truth_panel[inside].tolist() != prediction_panel[inside].tolist()
    # Nothing is drawn where nothing is predicted.
    assert (panels(right)[1][:, LONG_SIDE // 2 :] == 120).all()


def test_instances_have_distinct_colours() -> None:
    truth = [instance("cat", left) for left in (0, 16, 32, 48)]
    drawn, _ = panels(draw_detections(IMAGE, truth, [], ""))
    assert len({tuple(drawn[200, left + 120]) for left in (0, 160, 320, 480)}) == 4


def test_predictions_above_a_half_are_shown_or_else_the_best_few() -> None:
    low = [instance("cat", 4, score) for score in (0.1, 0.3, 0.2, 0.05, 0.4, 0.15)]
    shown, title = select(low)
    assert [entry.score for entry in shown] == [0.4, 0.3, 0.2, 0.15, 0.1]
    assert "the best 5" in title
    shown, title = select([*low, instance("cat", 4, 0.6)])
    assert [entry.score for entry in shown] == [0.6]
    assert select([]) == ([], "prediction: nothing")


def test_an_instance_is_matched_once_and_a_crowd_often() -> None:
    found = [instance("cat", 4, 0.9), instance("cat", 5, 0.8)]
    assert match(found, [instance("cat", 4)]) == [0, None]
    assert match(found, [instance("cat", 4, crowd=True)]) == [0, 0]
    assert match(found, [instance("cat", 4, crowd=True), instance("cat", 5)]) == [1, 0]
    assert match(found, [instance("dog", 4)]) == [None, None]


def test_small_masks_lie_over_large_ones_and_empty_boxes_are_drawn() -> None:
    large, small = instance("sofa", 0), instance("cat", 4)
    large = large._replace(box=(0, 0, SIDE, SIDE // 2), mask_HW=np.ones(IMAGE.shape[:2], bool))
    colours = [(255, 0, 0), (0, 0, 255)]
    drawn = draw_instances(IMAGE, [small, large], colours, colours)
    assert drawn[160, 120].tolist() == [188, 60, 60]  # the small one's
    assert drawn[200, 500].tolist() == [60, 60, 188]
    flat = small._replace(box=(4, 8, 4, 8), mask_HW=np.zeros(IMAGE.shape[:2], bool))
    assert draw_instances(IMAGE, [flat], colours[:1], colours[:1]).shape == drawn.shape


def mmdet_sample(labels: list[int], predicted: list[int]) -> DetDataSample:
    def data(labels: list[int], masks: Any, **more: Any) -> InstanceData:
        boxes = torch.tensor([[4.0, 8.0, 20.0, 24.0]] * len(labels)).reshape(-1, 4)
        return InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.long), masks=masks, **more)

    mask = instance("", 4).mask_HW
    bitmaps = [BitmapMasks(np.stack([mask] * count) if count else [], *mask.shape) for count in (len(labels), 0)]
    sample = DetDataSample(metainfo={"img_path": "/data/image.jpg"})
    sample.gt_instances, sample.ignored_instances = data(labels, bitmaps[0]), data([], bitmaps[1])
    predicted_masks = torch.from_numpy(np.stack([mask] * len(predicted)))
    sample.pred_instances = data(predicted, predicted_masks, scores=torch.full((len(predicted),), 0.9))
    return sample


def test_labels_are_named_by_the_annotation_file(tmp_path: Path) -> None:
    hook = DetectionPlots(str(tmp_path), 1, ["person", "dog"])
    drawn = hook.draw(IMAGE, mmdet_sample([1], [0, 1, 7]))  # the head has more classes than the file
    box, mask = (4.0, 8.0, 20.0, 24.0), instance("", 4).mask_HW
    predictions = [Instance(name, box, mask, float(torch.tensor(0.9))) for name in ("person", "dog")]
    wanted = draw_detections(IMAGE, [Instance("dog", box, mask)], predictions, "image.jpg")
    assert (np.asarray(drawn) == np.asarray(wanted)).all()


def test_crowds_are_grey() -> None:
    drawn, _ = panels(draw_detections(IMAGE, [instance("cat", 4, crowd=True)], [], ""))
    assert drawn[160, 120].tolist() == [round(0.5 * 120 + 0.5 * CROWD_COLOUR[0])] * 3
