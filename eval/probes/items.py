"""IoU and accuracy from pixel counts: of the classes of one set of images, and of any multiset of the tested images.

mmseg's own metric adds float32 histograms, which stop being exact beyond 2^24 pixels of a class (about 60 images of ADE20K),
and rounds its metrics to two decimals; these do neither. The definitions are the same. Loads no torch.

Shapes: R sets of images, N images, K classes. The 3 of a count array: intersection, predicted, labelled pixels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.result import Result, read_arrays

Array = NDArray[np.float64]

Items = tuple[tuple[str, ...], Mapping[str, Array], Callable[[Array], Mapping[str, Array]]] | None

ARTEFACT = "image_pixels"


def class_scores(counts_R3K: NDArray[np.generic]) -> tuple[Array, Array, Array]:
    """Sets of images in percent, from the sums of their pixel counts: IoU [R, K] and accuracy [R, K] of classes, accuracy [R] of all.

    NaN where there is no value. Intersection over union is NaN for a class that is neither labelled nor predicted anywhere. A class
    that is predicted but labelled nowhere has 0, which enters the mean: mmseg's rule. Accuracy is correct over labelled pixels.
    """
    intersection_RK, predicted_RK, labelled_RK = counts_R3K.astype(np.float64).transpose(1, 0, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou_RK = 100 * intersection_RK / (predicted_RK + labelled_RK - intersection_RK)
        accuracy_R = 100 * intersection_RK.sum(axis=1) / labelled_RK.sum(axis=1)
        return iou_RK, 100 * intersection_RK / labelled_RK, accuracy_R


def read_items(result: Result, folder: Path) -> Items:
    """The names of the tested images, aAcc as a mean over them, and how mIoU and mAcc follow from weights [R, N] in R sets.

    None where the result, in this folder, has no such artefact. Classes that were matched stay so, as they are over all images.
    """
    file = result.artefacts.get(ARTEFACT)
    if file is None:
        return None
    arrays = read_arrays(folder / file)
    names, pixels_N3K = tuple(map(str, arrays["names"].ravel())), arrays["counts"]
    if pixels_N3K.dtype.kind not in "iu" or pixels_N3K.ndim != 3 or pixels_N3K.shape[:2] != (len(names), 3):
        raise ValueError(f"{file}: {pixels_N3K.dtype} counts of shape {pixels_N3K.shape} for {len(names)} images")
    counts_N3K = pixels_N3K.astype(np.float64)
    if counts_N3K.min(initial=0) < 0 or not counts_N3K[:, 2].any():
        raise ValueError(f"{file}: negative counts, or no labelled pixel")
    absent_is_zero = result.protocol.settings.get("absent_classes") in (
        "zero",
        True,
    )  # VIP has neither; its classes are left out
    correct_N, _, labelled_N = counts_N3K.sum(axis=2).T
    return (
        names,
        {"aAcc": 100 * len(names) * correct_N / labelled_N.sum()},
        partial(class_means, counts_N3K, absent_is_zero=absent_is_zero),
    )


def class_means(counts_N3K: Array, weights_RN: Array, absent_is_zero: bool = False) -> dict[str, Array]:
    """Compute mIoU and mAcc [R] of sets of images.

    A mean is over the classes that are labelled in the set. A class that the whole test set labels nowhere stays as the metric has
    it, 0 if it is predicted, and with `absent_is_zero` also if not. Otherwise a class that a set happens to miss would be 0 for a
    system that predicts it and no value for another.
    """
    sums_R3K = (weights_RN @ counts_N3K.reshape(len(counts_N3K), -1)).reshape(len(weights_RN), 3, -1)
    whole_3K = counts_N3K.sum(axis=0)
    iou_RK, accuracy_RK, _ = class_scores(sums_R3K)
    missed_RK = (sums_R3K[:, 2] == 0) & (whole_3K[2] > 0)
    zero_K = (whole_3K[2] == 0) & ((whole_3K[1] > 0) | absent_is_zero)
    iou_RK = np.where(missed_RK, np.nan, np.where(zero_K, 0, iou_RK))
    return {"mIoU": _mean_of_defined(iou_RK), "mAcc": _mean_of_defined(accuracy_RK)}


def _mean_of_defined(values_RK: Array) -> Array:
    """Mean [R] over what is not NaN; NaN where nothing is."""
    with np.errstate(invalid="ignore"):
        means_R: Array = np.nansum(values_RK, axis=1) / (~np.isnan(values_RK)).sum(axis=1)
    return means_R
