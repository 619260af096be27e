"""COCO's average precision in percent and full precision, by pycocotools, and which detections match in every single image.

Arrays of the .npz file of matches, per IoU type (prefix `bbox_` or `segm_`); D detections, G annotations that count:

- `names` [N]: file names of the tested images, ascending; `categories` [K]: names.
- `image` int32 [D], `category` int16 [D], `score` float64 [D]: indices into these, and the confidence. In the order of pycocotools:
  by category, image id, falling score.
- `matched`, `ignored` uint16 [D]: bit t is set if the detection matches an annotation at threshold t, or matches one that does not
  count (a crowd).
- `truth_image` int32 [G], `truth_category` int16 [G]: image and category of every annotation that counts.

Shapes: T IoU thresholds, R recalls, K classes, A areas, M limits of detections per image.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.openmmlab.operators import quiet_packages  # before anything of mmdet

# isort: split
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS

from common.files import write_atomically
from eval.detection.items import AP_NAMES, COLUMNS, IOU_TYPES

_NO_VALUE = -1  # pycocotools' value where there is no ground truth

Arrays = dict[str, Any]


def score(
    truth: COCO, detections: Sequence[Mapping[str, Any]], image_ids: Sequence[int], category_ids: Sequence[int]
) -> tuple[dict[str, float], dict[str, dict[str, float]], Arrays]:
    """Score detections in COCO's result format: image_id, category_id, score, bbox (left, top, width, height), segmentation (RLE).

    The ground truth may list more images than those that were tested, and more categories than those to average over.

    Returns `bbox_mAP`, `bbox_mAP_50`, `bbox_mAP_75` and the same for `segm`; the two mAP of every class, NaN where there is no ground
    truth; and the arrays of matches, over all areas, up to 100 detections per image and class.
    """
    truth = _renumbered(truth)
    classes = [category["name"] for category in truth.loadCats(list(category_ids))]
    names = {image["id"]: image["file_name"] for image in truth.loadImgs(list(image_ids))}
    ordered = sorted(names, key=lambda image: names[image])
    places = {image: place for place, image in enumerate(ordered)}
    arrays: Arrays = {"names": np.array([names[image] for image in ordered]), "categories": np.array(classes)}
    overall: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {name: {} for name in classes}
    for iou_type in IOU_TYPES:
        evaluation = _evaluate(truth, detections, iou_type, image_ids, category_ids)
        for name, value in zip(AP_NAMES, evaluation.stats[:3], strict=True):
            overall[f"{iou_type}_{name}"] = _percent(value)
        precision_TRK = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
        for index, name in enumerate(classes):
            defined = precision_TRK[:, :, index][precision_TRK[:, :, index] > _NO_VALUE]
            per_class[name][f"{iou_type}_mAP"] = _percent(defined.mean() if defined.size else _NO_VALUE)
        all_areas = evaluation.params.areaRng[0]
        records = [record for record in evaluation.evalImgs if record is not None and record["aRng"] == all_areas]
        arrays |= {f"{iou_type}_{name}": values for name, values in _matches(records, places, category_ids).items()}
    return overall, per_class, arrays


def _renumbered(truth: COCO) -> COCO:
    """The same ground truth with annotations numbered from 1: pycocotools, and `_matches`, take the id 0 for "matches nothing"."""
    result = COCO()
    annotations = [{**entry, "id": number} for number, entry in enumerate(truth.dataset["annotations"], 1)]
    result.dataset = {**truth.dataset, "annotations": annotations}
    with quiet_packages():
        result.createIndex()
    return result


def _evaluate(
    truth: COCO, detections: Sequence[Mapping[str, Any]], iou_type: str, image_ids: Sequence[int], category_ids: Sequence[int]
) -> Any:
    """Pycocotools' evaluation of boxes or masks alone: mask results carry no box, whose area would be taken for the mask's."""
    unused = "segmentation" if iou_type == "bbox" else "bbox"
    results = [{key: value for key, value in detection.items() if key != unused} for detection in detections]
    with quiet_packages():
        if results:
            found = truth.loadRes(results)
        else:  # `loadRes` fails on an empty list
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.params.catIds = list(category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _percent(value: float) -> float:
    return float("nan") if value == _NO_VALUE else 100.0 * float(value)


def _matches(records: Sequence[Mapping[str, Any]], places: Mapping[int, int], category_ids: Sequence[int]) -> Arrays:
    """The arrays of one IoU type, without their prefix, from what pycocotools keeps of each class and image."""
    categories = {category: number for number, category in enumerate(category_ids)}
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
    for record in records:
        place, category = places[record["image_id"]], categories[record["category_id"]]
        count, counting = len(record["dtScores"]), int((~np.asarray(record["gtIgnore"], bool)).sum())
        found["image"].append(np.full(count, place, np.int32))
        found["category"].append(np.full(count, category, np.int16))
        found["score"].append(np.asarray(record["dtScores"], np.float64))
        found["matched"].append(_bits(np.asarray(record["dtMatches"]) > 0))
        found["ignored"].append(_bits(np.asarray(record["dtIgnore"]) > 0))
        found["truth_image"].append(np.full(counting, place, np.int32))
        found["truth_category"].append(np.full(counting, category, np.int16))
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in found.items()}


def _bits(flags_TD: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """[T, D] -> [D]; bit t is row t."""
    weights_T = (1 << np.arange(len(flags_TD), dtype=np.uint16))[:, None]
    return (flags_TD * weights_T).sum(axis=0, dtype=np.uint16)


@METRICS.register_module()
class CocoAveragePrecision(CocoMetric):
    """`score` over what mmdet's CocoMetric collects.

    mmdet's own scoring rounds to three decimals, scores all images of the annotation file even where only some were tested, and
    fails on a head with more classes than the file.
    """

    default_prefix = None

    def __init__(self, ann_file: str, items_file: str) -> None:
        """Read a COCO annotation file; `items_file` is the .npz file for the matches of every single image."""
        super().__init__(ann_file=ann_file, metric=list(IOU_TYPES))
        self.items_file = Path(items_file)

    def compute_metrics(self, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
        predictions = [prediction for _, prediction in results]
        # The labels of mmdet's CocoDataset count the categories in this order.
        category_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        image_ids = [prediction["img_id"] for prediction in predictions]
        metrics, breakdown, arrays = score(self._coco_api, self._detections(predictions, category_ids), image_ids, category_ids)
        write_atomically(self.items_file, partial(np.savez_compressed, **arrays))
        return {**metrics, "breakdown": breakdown}

    def _detections(self, predictions: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Detections in COCO's result format. Classes that the annotation file does not have cannot count and are left out."""
        detections = []
        for prediction in predictions:
            values = (prediction[key] for key in ("labels", "scores", "bboxes", "masks"))
            for label, confidence, box, mask in zip(*values, strict=True):
                if label < len(category_ids):
                    ids = {"image_id": prediction["img_id"], "category_id": category_ids[label]}
                    outline = {"bbox": self.xyxy2xywh(box), "segmentation": mask}
                    detections.append({**ids, "score": float(confidence), **outline})
        return detections
