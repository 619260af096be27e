"""Results of probes: one row per network whose columns are of one protocol and one data set each, and their significance."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tables.__main__ import main
from tables.make import build_tables
from tests.conftest import RunMain
from tests.tables.conftest import VIT_SMALL, WriteResult, csv_rows, render_all

VIT_BASE = VIT_SMALL | {"embed_dim": 768, "num_heads": 12}
VOC = ("PASCAL VOC 2012", "val", 1449)


def test_a_network_has_one_row_with_a_column_for_each_protocol_and_data_set(
    runs: Path, write: WriteResult, run_main: RunMain
) -> None:
    protocol = "linear-segmentation-dinov2"
    write("mine", "linear_segmentation", folder="mine/ade", protocol=protocol, values={"mIoU": 30.666}, spec=VIT_BASE)
    write("mine", "linear_segmentation", folder="mine/voc", protocol=protocol, values={"mIoU": 63.5}, test=VOC, spec=VIT_BASE)
    write("mine", "linear_segmentation", folder="mine/dinov3", test=VOC, values={"mIoU": 77.0}, spec=VIT_BASE)
    write("mine", "retrieval_segmentation", values={"mIoU": 45.5}, coverage="subset", spec=VIT_BASE)
    write("mine", "depth", values={"rmse": 0.5, "abs_rel": 0.1, "a1": 0.9}, spec=VIT_BASE)
    files = render_all(runs)
    (own,) = [row for row in csv.DictReader(io.StringIO(files["frozen.csv"])) if row["method"] == "mine"]
    filled = {key: text for key, text in own.items() if text}
    assert filled == {
        **{"method": "mine", "backbone": "ViT-B/16"},
        **{"linseg_dinov2_voc_miou": "63.50", "linseg_dinov2_ade20k_miou": "30.67"},
        **{"hummingbird_102k_voc_miou": "45.5", "depth_rmse": "0.500"},
        "standing": "VOC lin. (DINOv2) measured, ADE20K lin. (DINOv2) measured, VOC retrieval 102k subset, NYU RMSE in m (DINOv3) "
        "measured",
        "seeds": "1",
    }
    # It stands after the published rows of its backbone, and the best of a column is marked across both.
    names = [row["method"] for row in csv.DictReader(io.StringIO(files["frozen.csv"]))]
    assert names[names.index("mine") - 1] == "CrIBo"
    (full,) = [row for row in csv_rows(runs, "frozen") if row["method"] == "mine"]
    assert full["linseg_dinov2_ade20k_result"] == "mine/ade/result.json"
    assert (full["linseg_dinov2_voc_result"], full["linseg_dinov2_voc_items"]) == ("mine/voc/result.json", "1449")
    assert full["hummingbird_102k_voc_items"] == "2"
    # Results in one row are checked against each other, though each of these benchmarks also has a table with a row per data set.
    checked = run_main(main, ["check", "--runs", runs])
    assert checked.status == 2
    assert "row of mine: mine/retrieval_segmentation/result.json has dataset.test.coverage subset" in checked.stdout
    # Nobody has published DINOv3's protocol on VOC: this is in the table of the protocol, with all metrics and data sets.
    assert [row["dataset"] for row in csv_rows(runs, "linseg_dinov3")] == ["PASCAL VOC 2012 val"]
    assert [row["dataset"] for row in csv_rows(runs, "linseg_dinov2")] == ["ADE20K validation", "PASCAL VOC 2012 val"]
    assert csv_rows(runs, "depth")[0]["depth_abs_rel"] == "0.1"


def test_the_small_table_has_each_figure_once_in_its_own_unit_and_direction(runs: Path, write: WriteResult) -> None:
    write("mine", "linear_segmentation", protocol="linear-segmentation-dinov2", values={"mIoU": 30.666}, spec=VIT_BASE)
    write("mine", "retrieval_segmentation", values={"mIoU": 45.5}, spec=VIT_BASE)
    write(
        "mine", "retrieval_segmentation", folder="fixed", protocol="hummingbird-fixed-102k", values={"mIoU": 46}, spec=VIT_BASE
    )
    (headline,) = build_tables(runs).headlines
    assert headline.headings == (
        *("ViT-B/16", "ADE20K lin. (DINOv2)", "VOC retrieval 102k"),
        *("Retrieval without quirks, memory 102k, PASCAL VOC 2012 val mIoU", "pretraining data", "standing"),
    )
    assert headline.lines[:2] == [
        ("mine", "30.67", "45.5", "46.0", "–", "measured"),
        ("DINO", "31.03 (-0.36)", "44.9 (+0.6)", "–", "ImageNet-1k", "published"),
    ]
    write("small", "depth", values={"rmse": 0.41, "abs_rel": 0.1, "a1": 0.9}, spec=VIT_SMALL)
    made = build_tables(runs, first="small").headlines[0]
    assert made.headings[:2] == ("ViT-S/16", "NYU RMSE in m (DINOv3)")
    assert made.lines == [("small", "0.410", "–", "measured"), ("DINOv3", "0.403 (+0.007)", "LVD-1689M", "published")]
    assert "Lower is better for NYU RMSE in m (DINOv3)." in made.remarks


@pytest.mark.parametrize(
    ("task", "column"),
    [
        ("linear_segmentation", "linseg_dinov3_ade20k_miou"),
        ("retrieval_segmentation", "hummingbird_102k_voc_miou"),
        ("depth", "depth_rmse"),
    ],
)
def test_probes_are_compared_by_the_images_of_both(runs: Path, write: WriteResult, task: str, column: str) -> None:
    """The first network is a little better on every image, the second as good as the baseline on average."""
    random, count = np.random.default_rng(0), 40
    names = np.array([f"{number:03}" for number in range(count)])
    for name, shift, noise in (("better", 1.0, 0.1), ("even", 0.0, 3.0), ("base", 0.0, 0.0)):
        gain_N = shift + noise * random.permutation(np.linspace(-1, 1, count))
        arrays: dict[str, Any]
        if task == "depth":
            rmse_N = 0.5 - 0.05 * gain_N
            arrays = {"rmse": rmse_N, "abs_rel": rmse_N, "a1": 1 - rmse_N}
            artefact, values = "image_metrics", {metric: float(of.mean()) for metric, of in arrays.items()}
        else:
            correct_N = (600 + 50 * gain_N).astype(np.int32)[:, None]
            both_NK, all_NK = np.repeat(correct_N, 2, axis=1), np.full((count, 2), 1000, np.int32)
            arrays = {"counts": np.stack([both_NK, all_NK, all_NK], axis=1)}
            artefact = "image_pixels"
            values = {"mIoU": 100 * correct_N.sum() / (2000 * count - correct_N.sum()), "aAcc": correct_N.mean() / 10}
        settings = {"absent_classes": "left out" if task == "linear_segmentation" else True}
        path = write(name, task, values=values, settings=settings, artefacts={artefact: "items.npz"})
        np.savez(path.parent / "items.npz", names=names, **arrays)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(render_all(runs, "base")["frozen_full.csv"]))}
    low, high = (float(rows["better"][f"{column}_delta_{end}"]) for end in ("low", "high"))
    assert high < 0 if task == "depth" else low > 0
    assert float(rows["even"][f"{column}_delta_low"]) < 0 < float(rows["even"][f"{column}_delta_high"])
