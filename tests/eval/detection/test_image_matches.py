"""Average precision on any multiset of images, from what the artefact holds, against COCO's evaluation on copied images."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO

from eval.detection.coco_scoring import PYCOCOTOOLS
from eval.detection.figures import IOU_TYPES, compute_figures, split_figures
from eval.detection.image_matches import match_images
from tables.average_precision import average_precision, read_classes

SIDE = 80
CATEGORIES = (3, 7, 9)
"""The last one has no annotations."""


def _box(generator: np.random.Generator) -> tuple[int, int, int, int]:
    left, top = generator.integers(0, 40, 2)
    width, height = generator.integers(8, 40, 2)
    return int(left), int(top), int(width), int(height)


def _outline(box: tuple[int, int, int, int]) -> list[list[float]]:
    left, top, width, height = box
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


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
    coco = COCO()
    annotations = []
    for image, of_image in enumerate(truth, start=1):
        for entry in of_image:
            _, _, width, height = entry["bbox"]
            outline = _outline(entry["bbox"])
            shape = masks.frPyObjects(outline, SIDE, SIDE)[0] if entry["iscrowd"] else outline
            annotations.append(
                {
                    **entry,
                    "bbox": list(entry["bbox"]),
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "area": width * height,
                    "segmentation": shape,
                }
            )
    coco.dataset = {
        "images": [{"id": n, "height": SIDE, "width": SIDE, "file_name": f"{1000 - n}.jpg"} for n in range(1, len(truth) + 1)],
        "categories": [{"id": category, "name": str(category)} for category in CATEGORIES],
        "annotations": annotations,
    }
    coco.createIndex()
    detections = [
        {
            **entry,
            "bbox": list(entry["bbox"]),
            "image_id": n,
            "segmentation": masks.frPyObjects(_outline(entry["bbox"]), SIDE, SIDE)[0],
        }
        for n, of_image in enumerate(found, start=1)
        for entry in of_image
    ]
    return coco, detections


@pytest.mark.parametrize("seed", range(4))
def test_copied_images_score_as_weighted_ones(seed: int) -> None:
    truth, found = _scene(seed, 9)
    coco, detections = _coco(truth, found)
    arrays = match_images(coco, detections, list(range(1, 10)), CATEGORIES)
    classes = {iou_type: read_classes(arrays, iou_type) for iou_type in IOU_TYPES}
    generator = np.random.default_rng(seed)
    weights_RN = np.stack([np.ones(9), *(np.bincount(generator.integers(9, size=9), minlength=9) for _ in range(3))])
    figures = average_precision(classes, weights_RN.astype(np.float64))
    # File names fall while ids rise, so that items are not in the order of the ids.
    for row, weights_N in enumerate(weights_RN.astype(int)):
        copies = [image for image, weight in enumerate(weights_N[::-1]) for _ in range(weight)]
        copied = _coco([truth[image] for image in copies], [found[image] for image in copies])
        wanted, _ = split_figures(compute_figures(*copied, list(range(1, len(copies) + 1)), CATEGORIES, PYCOCOTOOLS))
        assert {name: values_R[row] for name, values_R in figures.items()} == pytest.approx(wanted, abs=1e-9)


def test_no_detections_score_zero_and_no_annotations_have_no_value() -> None:
    truth, found = _scene(0, 8)
    coco, _ = _coco(truth, found)
    arrays = match_images(coco, [], list(range(1, 9)), CATEGORIES)
    classes = {"bbox": read_classes(arrays, "bbox")}
    # The first image is without annotations; it is the last one by name.
    weights_RN = np.array([np.ones(8), np.eye(8)[-1]])
    ap_R = average_precision(classes, weights_RN)["bbox_mAP"]
    assert ap_R[0] == 0
    assert np.isnan(ap_R[1])
