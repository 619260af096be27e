"""Average precision; on any multiset of images, from what the artefact holds, against COCO's evaluation on copied images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from pycocotools import mask as masks
from pycocotools.coco import COCO

from eval.detection.items import IOU_TYPES, average_precision, read_classes
from eval.detection.metric import score
from eval.detection.roi_extractor import Float32RoIExtractor

SIDE = 80
PERSON, DOG = 1, 18


def _annotated(images: Sequence[int], annotations: list[dict[str, Any]], categories: dict[int, str]) -> COCO:
    coco = COCO()
    coco.dataset = {
        # File names fall while ids rise, so that items are not in the order of the ids.
        "images": [{"id": image, "height": SIDE, "width": SIDE, "file_name": f"{1000 - image}.jpg"} for image in images],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco


def _object(image: int, category_id: int, bbox: Sequence[int], **more: Any) -> dict[str, Any]:
    left, top, width, height = bbox
    outline = [[left, top, left + width, top, left + width, top + height, left, top + height]]
    shape = outline if more.get("iscrowd") == 0 else masks.frPyObjects(outline, SIDE, SIDE)[0]
    area = {"area": width * height} if "iscrowd" in more else {}
    return {"image_id": image, "category_id": category_id, "bbox": list(bbox), "segmentation": shape, **area, **more}


@pytest.fixture
def truth() -> COCO:
    """Two images with a person each; no dog anywhere."""
    persons = [_object(image, PERSON, (10, 10, 20, 20), iscrowd=0) for image in (1, 2)]
    return _annotated((1, 2), persons, {PERSON: "person", DOG: "dog"})


def _detection(image: int, left: int = 10) -> dict[str, Any]:
    return _object(image, PERSON, (left, 10, 20, 20), score=0.9)


@pytest.mark.parametrize(
    ("detections", "images", "mean", "at_50", "at_75"),
    [
        ([], [1, 2], 0, 0, 0),
        ([_detection(1), _detection(2)], [1, 2], 100, 100, 100),
        # Shifted by 4 of 20 pixels: IoU 16/24 = 0.667 passes 0.5, 0.55, 0.6 and 0.65 of the ten thresholds.
        ([_detection(1, left=14), _detection(2, left=14)], [1, 2], 40, 100, 0),
        ([_detection(1)], [1], 100, 100, 100),  # the other image was not tested and does not count
        # One of two found: 51 of the 101 recall points have precision 1. mmdet would round to 0.505.
        ([_detection(1)], [1, 2], *[100 * 51 / 101] * 3),
    ],
)
def test_visible_cases(
    truth: COCO, detections: list[dict[str, Any]], images: list[int], mean: float, at_50: float, at_75: float
) -> None:
    overall, per_class, _ = score(truth, detections, images, [PERSON, DOG])
    assert list(overall) == ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "segm_mAP", "segm_mAP_50", "segm_mAP_75"]
    assert list(overall.values()) == pytest.approx([mean, at_50, at_75] * 2, abs=1e-9)
    assert per_class["person"]["segm_mAP"] == pytest.approx(mean, abs=1e-9)
    # A class without ground truth has no value; it is not a zero and does not lower the mean.
    assert math.isnan(per_class["dog"]["bbox_mAP"])


CATEGORIES = (3, 7, 9)  # the last one has no annotations


def _box(generator: np.random.Generator) -> tuple[int, int, int, int]:
    left, top = generator.integers(0, 40, 2)
    width, height = generator.integers(8, 40, 2)
    return int(left), int(top), int(width), int(height)


def _scene(seed: int, num_images: int) -> tuple[list[list[dict[str, Any]]], list[list[dict[str, Any]]]]:
    """Annotations and detections per image, some of the latter near the former, some crowds; no two scores alike."""
    generator = np.random.default_rng(seed)
    truth, found = [], []
    scores = iter(generator.permutation(1000) / 1000)
    for image in range(num_images):
        boxes = [(_box(generator), int(generator.choice(CATEGORIES[:2]))) for _ in range(image % 4)]
        truth.append(
            [{"bbox": box, "category_id": category, "iscrowd": int(generator.random() < 0.2)} for box, category in boxes]
        )
        near = [((box[0] + int(generator.integers(0, 6)), *box[1:]), category) for box, category in boxes]
        far = [(_box(generator), int(generator.choice(CATEGORIES))) for _ in range(3)]
        found.append([{"bbox": box, "category_id": category, "score": float(next(scores))} for box, category in near + far])
    return truth, found


def _coco(truth: list[list[dict[str, Any]]], found: list[list[dict[str, Any]]]) -> tuple[COCO, list[dict[str, Any]]]:
    def placed(images: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        return [_object(image, **entry) for image, of_image in enumerate(images, start=1) for entry in of_image]

    categories = {category: str(category) for category in CATEGORIES}
    return _annotated(range(1, len(truth) + 1), placed(truth), categories), placed(found)


def _weighted(arrays: dict[str, Any], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
    return average_precision({iou_type: read_classes(arrays, iou_type) for iou_type in IOU_TYPES}, weights_RN.astype(float))


@pytest.mark.parametrize("seed", range(3))
def test_copied_images_score_as_weighted_ones(seed: int) -> None:
    truth, found = _scene(seed, 9)
    coco, detections = _coco(truth, found)
    overall, per_class, arrays = score(coco, detections, range(1, 10), CATEGORIES)
    for name in ("bbox_mAP", "segm_mAP"):
        assert np.nanmean([values[name] for values in per_class.values()]) == pytest.approx(overall[name])
    generator = np.random.default_rng(seed)
    weights_RN = np.stack([np.ones(9), *(np.bincount(generator.integers(9, size=9), minlength=9) for _ in range(3))])
    metrics = _weighted(arrays, weights_RN)
    assert len(weights_RN) == 4
    for row, weights_N in enumerate(weights_RN.astype(int)):
        copies = [image for image, weight in enumerate(weights_N[::-1]) for _ in range(weight)]
        copied = _coco([truth[image] for image in copies], [found[image] for image in copies])
        wanted, *_ = score(*copied, range(1, len(copies) + 1), CATEGORIES)
        assert {name: values_R[row] for name, values_R in metrics.items()} == pytest.approx(wanted, abs=1e-9)


def test_of_equal_scores_the_image_with_the_lower_id_is_first() -> None:
    """As in COCO's evaluation, though items are in the order of their names."""
    coco, detections = _coco(*_scene(0, 40))
    tied = [{**detection, "score": round(detection["score"], 1)} for detection in detections]
    wanted, _, arrays = score(coco, tied, range(1, 41), CATEGORIES)
    found = _weighted(arrays, np.ones((1, 40)))
    assert {name: values_R[0] for name, values_R in found.items()} == pytest.approx(wanted, abs=1e-9)
    assert score(coco, detections, range(1, 41), CATEGORIES)[0] != wanted


def test_no_detections_score_zero_and_no_annotations_have_no_value() -> None:
    coco, _ = _coco(*_scene(0, 8))
    *_, arrays = score(coco, [], range(1, 9), CATEGORIES)
    # The first image is without annotations; it is the last one by name.
    ap_R = _weighted(arrays, np.array([np.ones(8), np.eye(8)[-1]]))["bbox_mAP"]
    assert ap_R[0] == 0
    assert np.isnan(ap_R[1])


def test_boxes_are_not_rounded_to_the_features_precision() -> None:
    # A ramp: the average over a box tells where the box is. 301 is no bfloat16 (300 and 302 are).
    layer = {"type": "RoIAlign", "output_size": 2, "sampling_ratio": 0}
    options: dict[str, Any] = {"roi_layer": layer, "out_channels": 1, "featmap_strides": [4, 8]}
    features = tuple(torch.arange(400 // stride).float().expand(1, 1, 8, -1).contiguous() for stride in (4, 8))
    rois = torch.tensor([[0.0, 281.0, 8.0, 301.0, 28.0]])
    wanted = SingleRoIExtractor(**options)(features, rois)
    halved = tuple(level.bfloat16() for level in features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rounded = (extractor(**options)(halved, rois) for extractor in (Float32RoIExtractor, SingleRoIExtractor))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(rounded.float(), wanted, atol=0.05)


@pytest.mark.parametrize("first", [0, -1])
def test_any_numbering_of_annotations_scores_alike(first: int, truth: COCO) -> None:
    """pycocotools takes the id 0 for "matches nothing": perfect detections had half the AP."""
    for number, entry in enumerate(truth.dataset["annotations"], start=first):
        entry["id"] = number
    truth.createIndex()
    metrics, _, arrays = score(truth, [_detection(1), _detection(2)], [1, 2], [PERSON, DOG])
    assert metrics["bbox_mAP"] == metrics["segm_mAP"] == pytest.approx(100)
    assert arrays["bbox_matched"].all()
