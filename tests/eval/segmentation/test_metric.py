"""The metric of the test loop against mmseg's own, which rounds to two decimals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.datasets import ADE20KDataset
from mmseg.evaluation import IoUMetric

from eval.segmentation.figures import compute_figures
from eval.segmentation.metric import PixelCounts, read_counts

META = {"classes": ADE20KDataset.METAINFO["classes"]}


def _samples() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for height, width in ((40, 30), (25, 64), (33, 33)):
        labels_1HW = torch.randint(0, 12, (1, height, width), generator=generator)
        guesses_1HW = torch.randint(0, 15, (1, height, width), generator=generator)
        predictions_1HW = torch.where(torch.rand(labels_1HW.shape, generator=generator) < 0.7, labels_1HW, guesses_1HW)
        labels_1HW[:, :5] = 255
        samples.append(
            {
                "pred_sem_seg": {"data": predictions_1HW},
                "gt_sem_seg": {"data": labels_1HW.to(torch.uint8)},
                "seg_map_path": f"folder/labels{height}.png",
            }
        )
    return samples


def test_figures_are_mmsegs_before_rounding(tmp_path: Path) -> None:
    ours = PixelCounts(output_file=str(tmp_path / "counts.json"), items_file=str(tmp_path / "images.npz"))
    theirs = IoUMetric(iou_metrics=["mIoU"])
    for metric in (ours, theirs):
        metric.dataset_meta = META
        for sample in _samples():
            metric.process({}, [sample])
    found, wanted = ours.evaluate(size=3), theirs.evaluate(size=3)
    assert set(found) == {"mIoU", "aAcc", "mAcc"}
    for name, value in found.items():
        assert value == pytest.approx(wanted[name], abs=0.005 + 1e-6)
        assert round(value, 2) != value
    classes, counts_3K = read_counts(tmp_path / "counts.json")
    assert compute_figures(counts_3K)[:3] == (found["mIoU"], found["aAcc"], found["mAcc"])
    with np.load(tmp_path / "images.npz", allow_pickle=False) as archive:
        assert archive["names"].tolist() == ["labels25", "labels33", "labels40"]
        assert torch.equal(torch.from_numpy(archive["counts"]).sum(dim=0), counts_3K)
    assert classes[:2] == ["wall", "building"]
    assert "bed" in classes  # mmseg writes "bed "


def test_a_foreign_label_names_its_file() -> None:
    metric = PixelCounts()
    metric.dataset_meta = META
    sample = _samples()[0]
    sample["gt_sem_seg"]["data"][0, 10, 10] = 200
    with pytest.raises(ValueError, match=r"labels40\.png: labels from 0 to 200"):
        metric.process({}, [sample])
