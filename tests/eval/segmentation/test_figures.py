"""mIoU, aAcc and mAcc against an independent confusion matrix, and on cases whose answer is visible."""

import math

import numpy as np
import pytest
import torch

from eval.segmentation.figures import IGNORED_LABEL, compute_figures, count_pixels


def reference(predictions: list[np.ndarray], labels: list[np.ndarray], num_classes: int) -> tuple[float, float, float]:
    """Textbook definitions on one confusion matrix in float64, pixel by pixel."""
    confusion = np.zeros((num_classes, num_classes))
    for predicted, labelled in zip(predictions, labels, strict=True):
        for guess, truth in zip(predicted.ravel().tolist(), labelled.ravel().tolist(), strict=True):
            if truth != IGNORED_LABEL:
                confusion[truth, guess] += 1
    ious, accuracies = [], []
    for index in range(num_classes):
        union = confusion[index].sum() + confusion[:, index].sum() - confusion[index, index]
        if union:
            ious.append(confusion[index, index] / union)
        if confusion[index].sum():
            accuracies.append(confusion[index, index] / confusion[index].sum())
    return 100 * float(np.mean(ious)), 100 * float(np.trace(confusion) / confusion.sum()), 100 * float(np.mean(accuracies))


@pytest.mark.parametrize("seed", range(5))
def test_random_maps_match_a_confusion_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(2, 30))
    predictions, labels = [], []
    total = torch.zeros(3, num_classes, dtype=torch.int64)
    for _ in range(6):
        shape = tuple(rng.integers(1, 40, size=2))
        # The last class is never labelled but predicted, so that its IoU is 0 and it has no accuracy.
        truth = rng.integers(0, num_classes - 1, size=shape)
        guess = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, num_classes, size=shape))
        truth[rng.random(shape) < 0.2] = IGNORED_LABEL
        predictions.append(guess)
        labels.append(truth)
        total += count_pixels(torch.from_numpy(guess), torch.from_numpy(truth), num_classes)
    figures = compute_figures(total)
    assert figures[:3] == pytest.approx(reference(predictions, labels, num_classes), abs=1e-10)


def test_classes_without_value_are_nan_and_leave_the_means() -> None:
    labels = torch.tensor([[0, 0, 1, IGNORED_LABEL]])
    predictions = torch.tensor([[0, 2, 1, 3]])
    figures = compute_figures(count_pixels(predictions, labels, 5))
    assert figures.iou_K[:3].tolist() == [50.0, 100.0, 0.0]
    assert figures.iou_K[3:].isnan().all()  # predicted on an unlabelled pixel only, and nowhere at all
    assert figures.acc_K[:2].tolist() == [50.0, 100.0]
    assert figures.acc_K[2:].isnan().all()
    assert (figures.miou, figures.macc) == (50.0, 75.0)
    assert figures.aacc == pytest.approx(200 / 3)


def test_nothing_labelled_has_no_value() -> None:
    figures = compute_figures(count_pixels(torch.zeros(2, 2), torch.full((2, 2), IGNORED_LABEL), 3))
    assert all(math.isnan(value) for value in figures[:3])


def test_counts_stay_exact_where_float32_does_not() -> None:
    one_pixel = count_pixels(torch.zeros(1, 1), torch.zeros(1, 1), 1)
    beyond_float32 = torch.full((3, 1), 2**24, dtype=torch.int64)
    assert (beyond_float32 + one_pixel).flatten().tolist() == [2**24 + 1] * 3


@pytest.mark.parametrize("label", [-1, 3, 254])
def test_a_label_outside_the_classes_is_an_error(label: int) -> None:
    with pytest.raises(ValueError, match="valid: 0 to 2 and 255"):
        count_pixels(torch.zeros(1, 2), torch.tensor([[0, label]]), 3)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) for labels of shape \(2, 1\)"):
        count_pixels(torch.zeros(1, 2), torch.zeros(2, 1), 3)
