"""mIoU, aAcc and mAcc from pixel counts: three pure functions, in whole numbers until the last division.

mmseg's own metric adds float32 histograms, which stop being exact beyond 2^24 pixels of a class (about 60 images of ADE20K),
and rounds its figures to two decimals; these do neither. The definitions are the same.

Shapes: H x W pixels, K classes. Rows of a count tensor: INTERSECTION, PREDICTED, LABELLED.
"""

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED_LABEL = 255

INTERSECTION, PREDICTED, LABELLED = range(3)


class Figures(NamedTuple):
    """Everything in percent and float64; NaN where there is no value."""

    miou: float
    """Mean of `iou_K` over the classes that have one."""
    aacc: float
    """Correct pixels over labelled pixels."""
    macc: float
    """Mean of `acc_K` over the classes that have one."""
    iou_K: Tensor
    """Intersection over union; NaN for a class that is neither labelled nor predicted anywhere."""
    acc_K: Tensor
    """Correct over labelled pixels of a class; NaN for a class that is labelled nowhere."""


def check_label_maps(predictions_HW: Tensor, labels_HW: Tensor, num_classes: int) -> None:
    """Raise ValueError unless a prediction and its ground truth fit each other and the classes."""
    if predictions_HW.shape != labels_HW.shape:
        raise ValueError(f"prediction of shape {tuple(predictions_HW.shape)} for labels of shape {tuple(labels_HW.shape)}")
    labels = labels_HW[labels_HW != IGNORED_LABEL]
    if labels.numel() and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"labels from {int(labels.min())} to {int(labels.max())}, after reduction; valid: 0 to {num_classes - 1} and "
            f"{IGNORED_LABEL} for unlabelled"
        )


def count_pixels(predictions_HW: Tensor, labels_HW: Tensor, num_classes: int) -> Tensor:
    """Count one image's pixels per class, leaving out those that are not labelled.

    Args:
        predictions_HW: Integer class indices in [0, K).
        labels_HW: Integer class indices in [0, K), or IGNORED_LABEL; of the same device.
        num_classes: K.

    Returns:
        int64 [3, K] on the CPU: pixels where both agree, predicted pixels, labelled pixels. Counts of several images add up.

    Raises:
        ValueError: As `check_label_maps`.
    """
    check_label_maps(predictions_HW, labels_HW, num_classes)
    labelled = labels_HW != IGNORED_LABEL
    predictions, labels = predictions_HW[labelled].long(), labels_HW[labelled].long()
    agreed = labels[predictions == labels]
    return torch.stack([torch.bincount(values, minlength=num_classes) for values in (agreed, predictions, labels)]).cpu()


def compute_figures(counts_3K: Tensor) -> Figures:
    """The figures of a data set.

    A class that is predicted but labelled nowhere has IoU 0, which enters mIoU, and no accuracy: mmseg's rule.

    Args:
        counts_3K: The sum of `count_pixels` over all images.
    """
    counts_3K = counts_3K.double()
    intersection, predicted, labelled = counts_3K[INTERSECTION], counts_3K[PREDICTED], counts_3K[LABELLED]
    iou_K = 100 * intersection / (predicted + labelled - intersection)
    acc_K = 100 * intersection / labelled
    return Figures(
        miou=float(iou_K.nanmean()),
        aacc=float(100 * intersection.sum() / labelled.sum()),
        macc=float(acc_K.nanmean()),
        iou_K=iou_K,
        acc_K=acc_K,
    )
