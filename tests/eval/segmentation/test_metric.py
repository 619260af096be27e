"""Labels, pixel counts and mIoU: against an independent confusion matrix, mmseg's own, and cases whose answer is visible."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.datasets import ADE20KDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from PIL import Image

from eval.openmmlab.loading import ImageFileError
from eval.probes.data import VOID
from eval.probes.items import class_means, class_scores
from eval.probes.pixels import compute_metrics, count_pixels
from eval.segmentation.metric import PixelCounts, ReadLabels


def reference(maps: list[tuple[np.ndarray, np.ndarray]], num_classes: int) -> list[float]:
    """Textbook definitions on one confusion matrix in float64."""
    confusion = np.zeros((num_classes, num_classes))
    for predicted, labelled in maps:
        known = labelled != VOID
        np.add.at(confusion, (labelled[known], predicted[known]), 1)
    right, of_truth = np.diag(confusion), confusion.sum(axis=1)
    union = of_truth + confusion.sum(axis=0) - right
    labelled = of_truth > 0
    accuracies = right[labelled] / of_truth[labelled]
    means = (right[union > 0] / union[union > 0]).mean(), right.sum() / confusion.sum(), accuracies.mean()
    return [100 * float(mean) for mean in means]


def random_maps(seed: int, num_classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and labels of six images."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(6):
        shape = tuple(rng.integers(1, 40, size=2))
        # The last class is never labelled but predicted, so that its IoU is 0 and it has no accuracy.
        truth = rng.integers(0, num_classes - 1, size=shape)
        guess = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, num_classes, size=shape))
        truth[rng.random(shape) < 0.2] = VOID
        maps.append((guess, truth))
    return maps


@pytest.mark.parametrize(("seed", "num_classes"), [(0, 2), (1, 12), (2, 29)])
def test_random_maps_match_a_confusion_matrix(seed: int, num_classes: int) -> None:
    maps = random_maps(seed, num_classes)
    total = sum(count_pixels(torch.from_numpy(guess), torch.from_numpy(truth), num_classes) for guess, truth in maps)
    assert isinstance(total, torch.Tensor)
    assert list(compute_metrics(total)[0].values()) == pytest.approx(reference(maps, num_classes), abs=1e-10)


def test_classes_without_value_are_nan_and_leave_the_means() -> None:
    labels = torch.tensor([[0, 0, 1, VOID]])
    predictions = torch.tensor([[0, 2, 1, 3]])
    counts_3K = count_pixels(predictions, labels, 5)
    (iou_K,), (accuracy_K,), _ = class_scores(counts_3K[None].numpy())
    assert iou_K[:3].tolist() == [50.0, 100.0, 0.0]
    assert np.isnan(iou_K[3:]).all()  # predicted on an unlabelled pixel only, and nowhere at all
    assert accuracy_K[:2].tolist() == [50.0, 100.0]
    assert np.isnan(accuracy_K[2:]).all()
    metrics, _ = compute_metrics(counts_3K)
    assert metrics == {"mIoU": 50.0, "aAcc": pytest.approx(200 / 3), "mAcc": 75.0}

    nothing_3K = count_pixels(torch.zeros(2, 2), torch.full((2, 2), VOID), 3)
    assert [math.isnan(value) for value in compute_metrics(nothing_3K)[0].values()] == [True] * 3


def test_copied_images_score_as_weighted_ones() -> None:
    counts_N3K = np.random.default_rng(0).integers(0, 50, (4, 3, 6)).astype(float)
    counts_N3K[:, 0] = counts_N3K.min(axis=1)
    weights_RN = np.array([[1.0, 1, 1, 1], [0, 2, 0, 2]])
    found = class_means(counts_N3K, weights_RN)
    for row, copies in enumerate(([0, 1, 2, 3], [1, 1, 3, 3])):
        wanted, _ = compute_metrics(torch.from_numpy(counts_N3K[copies].sum(axis=0)))
        assert {**wanted, **{name: values_R[row] for name, values_R in found.items()}} == pytest.approx(wanted)
    assert list(found) == ["mIoU", "mAcc"]


def read(path: Path, shape: tuple[int, int] = (4, 40), reader: type[LoadAnnotations] = ReadLabels, **options: Any) -> Any:
    results = {"seg_map_path": str(path), "ori_shape": shape, "reduce_zero_label": True, "label_map": None, "seg_fields": []}
    return reader(**options)(results)["gt_seg_map"]


def test_zero_is_ignored_and_damaged_and_foreign_label_maps_are_named(tmp_path: Path) -> None:
    labels = tmp_path / "labels.png"
    Image.fromarray(np.arange(160, dtype=np.uint8).reshape(4, 40).clip(0, 150)).save(labels)
    found = read(labels).ravel()
    assert found[:4].tolist() == [255, 0, 1, 2]
    assert found[150] == 149
    np.testing.assert_array_equal(found, read(labels, reader=LoadAnnotations, reduce_zero_label=True).ravel())
    with pytest.raises(ImageFileError, match=r"labels\.png: label map of shape \(4, 40\) for an image of \(8, 8\)"):
        read(labels, (8, 8))
    # The lower 8 bits of 300 are a class's, and 255 was taken for 0 here.
    for label, kind in ((151, np.uint8), (255, np.uint8), (300, np.uint16)):
        Image.fromarray(np.full((4, 40), label, kind)).save(labels)
        with pytest.raises(ImageFileError, match=rf"labels\.png: labels {label}; ADE20K's are"):
            read(labels)
    for content in (labels.read_bytes()[:45], b"", b"<html>"):
        labels.write_bytes(content)
        with pytest.raises(ImageFileError, match=r"labels\.png: not a readable label map"):
            read(labels)


def test_metrics_are_mmsegs_before_rounding(tmp_path: Path) -> None:
    ours = PixelCounts(output_file=str(tmp_path / "counts.json"), items_file=str(tmp_path / "images.npz"))
    theirs = IoUMetric(iou_metrics=["mIoU"])
    for metric in (ours, theirs):
        metric.dataset_meta = {"classes": ADE20KDataset.METAINFO["classes"]}
        for number, (guess, truth) in enumerate(random_maps(0, 15)):
            maps = {"pred_sem_seg": {"data": torch.tensor(guess[None])}, "gt_sem_seg": {"data": torch.tensor(truth[None])}}
            metric.process({}, [{**maps, "seg_map_path": f"folder/labels{9 - number}.png"}])
    found, wanted = ours.evaluate(size=6), theirs.evaluate(size=6)
    breakdown = found.pop("breakdown")
    assert set(found) == {"mIoU", "aAcc", "mAcc"}
    for name, value in found.items():
        assert value == pytest.approx(wanted[name], abs=0.005 + 1e-6)
        assert round(value, 2) != value
    counts = json.loads((tmp_path / "counts.json").read_text())
    counts_3K = torch.tensor(list(counts.values())).T
    metrics, per_class = compute_metrics(counts_3K)
    assert metrics == found
    assert list(breakdown) == list(counts)
    assert breakdown["wall"] == per_class[0]
    with np.load(tmp_path / "images.npz", allow_pickle=False) as archive:
        assert archive["names"].tolist() == [f"labels{number}" for number in range(4, 10)]
        assert torch.equal(torch.from_numpy(archive["counts"]).sum(dim=0), counts_3K)
    assert list(counts)[:2] == ["wall", "building"]
    assert "bed" in counts  # mmseg writes "bed "
