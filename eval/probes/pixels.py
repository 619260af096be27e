"""From predicted and labelled pixels to mIoU, aAcc and mAcc.

Shapes: H x W pixels, K classes. The 3 of a count tensor: intersection, predicted, labelled pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.probes.data import VOID
from eval.probes.items import class_scores


def count_pixels(predictions_HW: Tensor, labels_HW: Tensor, num_classes: int) -> Tensor:
    """Count one image's pixels per class, leaving out those that are not labelled: int64 [3, K] on the CPU; counts add up.

    Both maps hold integer class indices in [0, K), the labels also VOID, on the same device.
    """
    labelled = labels_HW != VOID
    predictions, labels = predictions_HW[labelled].long(), labels_HW[labelled].long()
    agreed = labels[predictions == labels]
    return torch.stack([torch.bincount(values, minlength=num_classes) for values in (agreed, predictions, labels)]).cpu()


def compute_metrics(counts_3K: Tensor, absent_is_zero: bool = False) -> tuple[dict[str, float], list[dict[str, float]]]:
    """mIoU, aAcc and mAcc from the sum of `count_pixels` over all images, and IoU and Acc of every class.

    All are in percent, NaN where there is no value. `absent_is_zero`: a class that is neither labelled nor predicted counts in the
    mIoU as 0, instead of not at all.
    """
    iou_1K, accuracy_1K, (accuracy,) = class_scores(counts_3K[None].numpy())
    if absent_is_zero:
        iou_1K = np.nan_to_num(iou_1K)
    # By torch's mean, whose last digit differs from numpy's: earlier results were made so.
    miou, macc = (float(torch.from_numpy(values_1K).nanmean()) for values_1K in (iou_1K, accuracy_1K))
    per_class = [
        {"IoU": iou, "Acc": of_class} for iou, of_class in zip(iou_1K[0].tolist(), accuracy_1K[0].tolist(), strict=True)
    ]
    return {"mIoU": miou, "aAcc": float(accuracy), "mAcc": macc}, per_class


def further_metrics(counts_3K: Tensor) -> dict[str, float]:
    """mDice, mPrecision and mFscore in percent; a class of 0 / 0 is left out, of the F-score also one that is never right."""
    intersection_K, predicted_K, labelled_K = counts_3K.double()
    precision_K, recall_K = intersection_K / predicted_K, intersection_K / labelled_K
    values = {
        "mDice": 2 * intersection_K / (predicted_K + labelled_K),
        "mPrecision": precision_K,
        "mFscore": 2 * precision_K * recall_K / (precision_K + recall_K),
    }
    return {name: 100 * float(value_K.nanmean()) for name, value_K in values.items()}


def nearest(labels_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels at another (height, width), by torch's rule: floor(index x old / new) in float32."""
    return F.interpolate(labels_HW[None, None].float(), size, mode="nearest")[0, 0].to(labels_HW.dtype)
