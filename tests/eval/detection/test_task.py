"""The whole task on a few drawn images, and the user's mistakes."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eval.detection.config import DetectionConfig
from eval.detection.task import evaluate
from eval.result import read_result
from tests.architectures import backbone_of
from tests.eval.course import OPTIONS, Course, Task, weights_of_one_update
from tests.eval.rows import ROWS, THIN_MASK_RCNN, toy

THIN = [*THIN_MASK_RCNN, "model.test_cfg.rcnn.score_thr=0.0"]
SETTLED = [
    *THIN,
    "model.backbone.drop_path_rate=0",
    *(f"model.train_cfg.{part}.sampler.num=100000" for part in ("rpn", "rcnn")),
]


def options(toy_file: Path, coco: Path, output: Path, **more: Any) -> DetectionConfig:
    values = {**OPTIONS, "backbone": toy_file, "batch_size": 2, "device_batch_size": 1, "short_side": 64, "override": THIN}
    return DetectionConfig(data=coco, output=output, **{**values, **more})


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-S/8", "DINOv3 ViT-S/16", "Swin-T", "ResNet-50"])
def test_one_update_and_one_test_image(task: Task, name: str, tmp_path: Path) -> None:
    thin = [*THIN_MASK_RCNN, "model.test_cfg.rpn.max_per_img=20", "model.train_cfg.rcnn.sampler.num=32"]
    if name == "ResNet-50":
        thin.append("model.roi_head.bbox_head.conv_out_channels=16")
    weights = weights_of_one_update(task, toy(ROWS[name]), tmp_path, override=thin)
    assert any(key.startswith("backbone.pyramid.") for key in weights) == ("ViT" in name)
    if name == "ResNet-50":
        # After the update statistics were measured afresh, on one batch: a tenth of the updates, rounded up.
        counted = {key: int(value) for key, value in weights.items() if key.endswith("num_batches_tracked")}
        assert set(counted.values()) == {1}
        assert {key.split(".")[0] for key in counted} == {"backbone", "neck", "roi_head"}


def test_a_network_of_one_size_cannot_be_fine_tuned(task: Task, tmp_path: Path) -> None:
    file = backbone_of("mixer_s32_224", tmp_path)
    with pytest.raises(ValueError, match="takes images of 224 x 224 pixels only; fine-tuning takes many sizes"):
        task.evaluate(task.options(tmp_path / "out", backbone=file))
