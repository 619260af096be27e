import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.result import BackboneRecord, Dataset, Environment, Metric, Protocol, Result, write_result
from eval.tasks import BENCHMARKS
from tables.make import build_tables, render_tables

PROTOCOLS = {benchmark.task: benchmark.protocol for benchmark in reversed(BENCHMARKS.values())}
"""Task -> the protocol of its first benchmark."""
DATASETS = {
    "detection": {"train": ("COCO 2017", "train2017", 118287), "test": ("COCO 2017", "val2017", 5000)},
    "segmentation": {"train": ("ADE20K", "training", 20210), "test": ("ADE20K", "validation", 2000)},
    "linear_segmentation": {"train": ("ADE20K", "training", 20210), "test": ("ADE20K", "validation", 2000)},
    "retrieval_segmentation": {
        "train": ("PASCAL VOC 2012", "trainaug", 10582),
        "test": ("PASCAL VOC 2012", "val", 1449),
    },
    "davis": {"test": ("DAVIS 2017", "val", 30)},
    "depth": {"train": ("NYU depth v2", "train", 24231), "test": ("NYU depth v2", "test", 654)},
    "retrieval": {"test": ("Oxford5k", "revisited", 70)},
    "copy_detection": {"test": ("Copydays", "strong", 229)},
    "object_discovery": {"test": ("PASCAL VOC 2007", "trainval", 5011)},
    "vip": {"test": ("VIP", "val", 50)},
    "jhmdb": {"test": ("JHMDB", "test of split 1", 268)},
    "classification": {"train": ("CIFAR-10", "train", 50000), "test": ("CIFAR-10", "test", 10000)},
}
METRICS = {
    "detection": ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "segm_mAP", "segm_mAP_50", "segm_mAP_75"),
    "segmentation": ("mIoU", "aAcc", "mAcc"),
    "linear_segmentation": ("mIoU", "aAcc", "mAcc"),
    "retrieval_segmentation": ("mIoU", "aAcc"),
    "davis": ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"),
    "depth": ("rmse", "abs_rel", "a1"),
    "retrieval": tuple(column.metric for column in BENCHMARKS["retrieval_dino"].columns),
    "copy_detection": ("mAP strong",),
    "object_discovery": ("CorLoc",),
    "vip": ("mIoU", "aAcc", "mAcc"),
    "jhmdb": tuple(column.metric for column in BENCHMARKS["jhmdb_cropmae"].columns),
    "classification": ("10-NN top-1", "10-NN top-5", "20-NN top-1", "20-NN top-5", "linear top-1", "linear top-5"),
}
UNITS = {column.metric: column.unit for benchmark in BENCHMARKS.values() for column in benchmark.columns}
VIT_TINY: dict[str, Any] = {
    **{"family": "vit", "embed_dim": 192, "depth": 12, "num_heads": 3, "patch_size": 16, "image_size": 224},
    **{"class_token": False, "final_norm": False, "mlp_ratio": 4.0},
}
VIT_SMALL = VIT_TINY | {"embed_dim": 384, "num_heads": 6}
NO_BENCHMARK_NUMBERS: dict[str, dict[str, Any]] = {
    "measured-sample": {"coverage": "sample"},
    "measured-subset": {"coverage": "subset"},
    "measured-deviating": {"deviations": {"topk": [5, 7]}},
}
"""Status -> options of `make_result` for a result of that worth."""
DEFAULTS: dict[str, Any] = {
    **{"values": {}, "intervals": {}, "breakdown": {}, "artefacts": {}, "seed": 0},
    **{"coverage": "full", "listing": "0" * 64, "test": ()},
    **{"version": 1, "settings": {}, "deviations": {}},
    **{"spec": VIT_TINY, "source": {}, "epoch": 200},
}
"""Options of `make_result`, besides `protocol` (the task's first) and `sha256` of the backbone (the name's length)."""
WriteResult = Callable[..., Path]


def make_result(name: str, task: str, *, protocol: str = "", sha256: str = "", **options: Any) -> Result:
    """A result as a task would write it, with arbitrary metrics."""
    assert options.keys() <= DEFAULTS.keys()
    given = DEFAULTS | options
    values = {metric: 10.0 + index / 7 for index, metric in enumerate(METRICS[task])} | given["values"]
    source = {"format": "own", "branch": "teacher", "file_name": f"{name}.pth", "sha256": "1" * 64, "epoch": given["epoch"]}
    fingerprint = {"listing_sha256": given["listing"], "coverage": given["coverage"]}
    settings = {"settings": given["settings"], "deviations": given["deviations"]}
    return Result(
        task=task,
        protocol=Protocol(name=protocol or PROTOCOLS[task], version=given["version"], **settings),
        metrics={
            metric: Metric(value=value, unit=UNITS.get(metric, "percent"), interval_95=given["intervals"].get(metric, []))
            for metric, value in values.items()
        },
        breakdown=given["breakdown"],
        datasets={
            role: Dataset(name=dataset, split=split, num_items=count if given["coverage"] == "full" else 2, **fingerprint)
            for role, (dataset, split, count) in (DATASETS[task] | ({"test": given["test"]} if given["test"] else {})).items()
        },
        backbone=BackboneRecord(
            name=name, sha256=sha256 or f"{len(name):064x}", spec=given["spec"], source=source | given["source"]
        ),
        config={},
        seed=given["seed"],
        environment=Environment(device="cpu", world_size=1, packages={"python": "3.11"}, code="unknown"),
        wall_time_s=1.0,
        peak_memory_bytes=1,
        artefacts=given["artefacts"],
        inputs_sha256="2" * 64,
    )


def render_all(runs: Path, baseline: str | None = None) -> dict[str, str]:
    """File name -> content of every table."""
    return render_tables(build_tables(runs, baseline))


def csv_rows(runs: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table's CSV file with everything."""
    return list(csv.DictReader(io.StringIO(render_all(runs)[f"{name}_full.csv"]), strict=True))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An empty folder of runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def write(runs: Path) -> WriteResult:
    """Write a result of `make_result` to its usual place below `runs`, or to another `folder` there."""

    def write_one(name: str, task: str, folder: str = "", **options: Any) -> Path:
        return write_result(runs / (folder or f"{name}/{task}"), make_result(name, task, **options))

    return write_one
