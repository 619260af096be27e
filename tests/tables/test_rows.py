from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tables.collect import collect
from tables.layout import COMPONENTS, MAIN, Layout
from tables.reference import read_reference
from tables.rows import Table, build_table, standing

Write = Callable[..., Path]


def _table(runs: Path, layout: Layout = MAIN) -> Table:
    return build_table(layout, read_reference(layout), collect(runs))


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, "measured"),
        ({"deviations": {"iterations": [40000, 20]}}, "measured-deviating"),
        ({"coverage": "subset"}, "measured-subset"),
        ({"coverage": "subset", "deviations": {"iterations": [40000, 20]}}, "measured-subset"),
        ({"coverage": "sample"}, "measured-sample"),
        ({"coverage": "sample", "deviations": {"iterations": [40000, 20]}}, "measured-sample"),
    ],
)
def test_only_the_whole_benchmark_by_the_published_protocol_is_plainly_measured(
    runs: Path, write: Write, options: dict[str, Any], status: str
) -> None:
    write("one", "segmentation", **options)
    (one,) = collect(runs)
    assert standing(one.measurements[0].result, "ade20k") == status
    assert {cell.status for cell in _table(runs).rows[-1].cells.values()} == {status}


def test_a_backbone_has_one_row_with_the_cells_of_its_tasks(runs: Path, write: Write) -> None:
    write("one", "davis", values={"J&F-Mean": 60.0, "J-Mean": 59.12345678901234, "F-Mean": float("nan")}, epoch=17)
    write("two", "detection", epoch=-1)
    table = _table(runs)
    assert [row.evaluated is None for row in table.rows] == [True] * 9 + [False] * 2
    one, two = table.rows[-2:]
    assert one.descriptors == {"method": "one", "backbone": "ViT-Ti/16", "pretraining_data": "", "epochs": "17"}
    assert {key: cell.text for key, cell in one.cells.items()} == {
        "davis_jf_mean": "60.0",
        "davis_j_mean": "59.12345678901234",
        "davis_f_mean": "",
    }
    assert two.descriptors["epochs"] == ""
    assert list(two.cells) == [column.key for column in MAIN.columns if column.benchmark == "coco"]


def test_every_metric_lands_in_its_column(runs: Path, write: Write) -> None:
    wanted = {
        "detection": {
            **{"bbox_mAP": "coco_box_ap", "bbox_mAP_50": "coco_box_ap50", "bbox_mAP_75": "coco_box_ap75"},
            **{"segm_mAP": "coco_mask_ap", "segm_mAP_50": "coco_mask_ap50", "segm_mAP_75": "coco_mask_ap75"},
        },
        "segmentation": {"mIoU": "ade20k_miou", "aAcc": "ade20k_aacc", "mAcc": "ade20k_macc"},
        "davis": {"J&F-Mean": "davis_jf_mean", "J-Mean": "davis_j_mean", "F-Mean": "davis_f_mean"},
    }
    value = 1.0
    expected = {}
    for task, columns in wanted.items():
        values = {}
        for metric, key in columns.items():
            value += 1.5
            values[metric] = value
            expected[key] = repr(value)
        write("one", task, values=values)
    assert {key: cell.text for key, cell in _table(runs).rows[-1].cells.items()} == expected


def test_ablation_tables_show_backbones_with_a_davis_figure_only(runs: Path, write: Write) -> None:
    write("one", "davis")
    write("two", "detection")
    measured = [row for row in _table(runs, COMPONENTS).rows if row.evaluated]
    assert [row.descriptors["method"] for row in measured] == ["one"]
    assert list(measured[0].cells) == ["davis_jf_mean"]
    assert measured[0].descriptors["neighbours"] == ""
