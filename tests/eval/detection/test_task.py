"""The whole task on a few drawn images, and the user's mistakes."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eval.detection.config import DetectionConfig
from eval.detection.task import evaluate
from eval.result import read_result
from tests.eval.course import OPTIONS, Course, Task
from tests.eval.rows import THIN_MASK_RCNN

THIN = [*THIN_MASK_RCNN, "model.test_cfg.rcnn.score_thr=0.0"]
SETTLED = [
    *THIN,
    "model.backbone.drop_path_rate=0",
    *(f"model.train_cfg.{part}.sampler.num=100000" for part in ("rpn", "rcnn")),
]


def options(toy_file: Path, coco: Path, output: Path, **more: Any) -> DetectionConfig:
    values = {**OPTIONS, "batch_size": 2, "device_batch_size": 1, "short_side": 64, "override": THIN}
    return DetectionConfig(backbone=toy_file, data=coco, output=output, **{**values, **more})


@pytest.fixture(scope="module")
def task(toy_file: Path, coco: Path) -> Task:
    return Task(name="detection", options=partial(options, toy_file, coco), settled=SETTLED)


class TestCourse(Course):
    def test_the_result_is_of_boxes_and_masks(self, finished: Path) -> None:
        result = read_result(finished / "result.json")
        assert list(result.metrics) == ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "segm_mAP", "segm_mAP_50", "segm_mAP_75"]
        assert sorted(result.breakdown) == ["dog", "person"]
        assert [set(values) for values in result.breakdown.values()] == [{"bbox_mAP", "segm_mAP"}] * 2
        drawn = {path for name, path in result.artefacts.items() if name.startswith("prediction on")}
        assert drawn == {"predictions/000.png", "predictions/001.png"}
        assert result.protocol.deviations["test_scale"] == [[1333, 800], [107, 64]]


def test_a_damaged_image_is_named(toy_file: Path, coco: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(coco, tmp_path / "coco"))
    damaged = root / "train2017" / "000000000001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"files are .*: train2017/000000000001\.jpg"):
        evaluate(options(toy_file, root, tmp_path / "out"))
