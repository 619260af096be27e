"""Average precision as an mmdet metric."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS

from eval.detection.figures import IOU_TYPES, compute_figures
from eval.detection.image_matches import match_images, write_matches


@METRICS.register_module()
class CocoAveragePrecision(CocoMetric):
    """`eval.detection.figures` over what mmdet's CocoMetric collects.

    mmdet's own scoring rounds to three decimals, scores all images of the annotation file even where only some were tested, and
    fails on a head with more classes than the file.
    """

    default_prefix = None

    def __init__(self, ann_file: str, items_file: str | None = None) -> None:
        """Read the ground truth.

        Args:
            ann_file: Path of a COCO annotation file.
            items_file: .npz file for what matches in every single image, see `eval.detection.image_matches`. None writes none.
        """
        super().__init__(ann_file=ann_file, metric=list(IOU_TYPES))
        self.items_file = items_file

    def compute_metrics(self, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
        """Score everything that `process` collected; see `eval.detection.figures.compute_figures`."""
        predictions = [prediction for _, prediction in results]
        # The labels of mmdet's CocoDataset count the categories in this order.
        category_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        image_ids = [prediction["img_id"] for prediction in predictions]
        detections = _detections(predictions, category_ids)
        if self.items_file is not None:
            write_matches(Path(self.items_file), match_images(self._coco_api, detections, image_ids, category_ids))
        return compute_figures(self._coco_api, detections, image_ids, category_ids)


def _detections(predictions: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections in COCO's result format. Classes that the annotation file does not have cannot count and are left out."""
    detections = []
    for prediction in predictions:
        for index, label in enumerate(prediction["labels"]):
            if label >= len(category_ids):
                continue
            left, top, right, bottom = (float(value) for value in prediction["bboxes"][index])
            detections.append(
                {
                    "image_id": prediction["img_id"],
                    "category_id": category_ids[label],
                    "score": float(prediction["scores"][index]),
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": prediction["masks"][index],
                }
            )
    return detections
