"""Short fine-tuning runs on real images of COCO and ADE20K: metrics, falling losses, and four images overfitted."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from eval.detection import task as detection
from eval.detection.config import DetectionConfig
from eval.result import Result
from eval.segmentation import task as segmentation
from eval.segmentation.config import SegmentationConfig
from tests.eval.rows import WIDTHS
from tests.toy import write_toy_backbone

pytestmark = pytest.mark.data

# A backbone and heads that one core can train in a minute or two.
SMALL = ViTSpec(embed_dim=96, depth=4, num_heads=3, patch_size=16, image_size=192, class_token=False, final_norm=False)
THIN_MASK_RCNN = [
    *(f"model.{name}=32" for name in WIDTHS),
    "model.roi_head.bbox_head.fc_out_channels=128",
    "model.train_cfg.rcnn.sampler.num=64",
    "model.train_cfg.rpn_proposal.nms_pre=400",
    "model.train_cfg.rpn_proposal.max_per_img=200",
    "optim_wrapper.optimizer.lr=1e-3",
]
THIN_FPN = [
    "model.neck.out_channels=64",
    "model.decode_head.in_channels=[64,64,64,64]",
    "model.decode_head.channels=64",
    "optim_wrapper.optimizer.lr=2e-3",
]
# The same view of every image each time: all sizes are the test's, the crop is the whole image, nothing is flipped or dropped.
PIPELINE = "train_dataloader.dataset.pipeline"
ONE_VIEW_OF_COCO = [
    f"{PIPELINE}.2.prob=0",
    *(f"{PIPELINE}.3.transforms.{step}.scales=[[320,192]]" for step in ("0.0", "1.0", "1.2")),
    f"{PIPELINE}.3.transforms.1.1.crop_size=[2000,2000]",
    "model.backbone.drop_path_rate=0",
]
# The crop is square and moves. AdjustGamma's default is 1.
ONE_VIEW_OF_ADE = [
    f"{PIPELINE}.2.ratio_range=[1,1]",
    f"{PIPELINE}.4.prob=0",
    f"{PIPELINE}.5.type=AdjustGamma",
    "model.backbone.drop_path_rate=0",
    "model.decode_head.dropout_ratio=0",
]


def common(data: Path, folder: Path) -> dict[str, Any]:
    paths = {"backbone": write_toy_backbone(folder, SMALL), "data": data, "output": folder / "out"}
    return {**paths, "device": "cpu", "workers": 0, "draw_images": 0}


def detect(data: Path, folder: Path, **options: Any) -> Result:
    return detection.evaluate(DetectionConfig(**common(data, folder), short_side=192, **options))


def segment(data: Path, folder: Path, side: int, **options: Any) -> Result:
    sides = {"crop": side, "train_short_side": side, "test_short_side": side}
    return segmentation.evaluate(SegmentationConfig(**common(data, folder), **sides, **options))


def check_falling_losses(folder: Path) -> None:
    """Of 36 updates with the published augmentation, on images of which hardly any comes twice."""
    lines = (folder / "out/training/training.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 36
    assert np.mean(losses[-9:]) < 0.7 * np.mean(losses[:9])


@pytest.mark.slow
def test_a_few_dozen_updates_of_detection(real_data_dir: Path, tmp_path: Path) -> None:
    lengths: dict[str, Any] = {"iterations": 36, "batch_size": 2, "device_batch_size": 1, "max_val_images": 3}
    result = detect(real_data_dir / "coco", tmp_path, override=THIN_MASK_RCNN, **lengths)
    check_falling_losses(tmp_path)
    assert (len(result.metrics), len(result.breakdown)) == (6, 80)
    assert (result.coverage, result.datasets["test"].num_items) == ("subset", 3)


@pytest.mark.slow
def test_a_few_dozen_updates_of_segmentation(real_data_dir: Path, tmp_path: Path) -> None:
    data = real_data_dir / "ade/ADEChallengeData2016"
    result = segment(data, tmp_path, side=64, iterations=36, batch_size=4, max_val_images=2, override=THIN_FPN)
    check_falling_losses(tmp_path)
    assert (list(result.metrics), len(result.breakdown)) == (["mIoU", "aAcc", "mAcc"], 150)
    labels = sorted((data / "annotations/validation").iterdir())[:2]
    assert (result.coverage, result.datasets["test"].num_items) == ("subset", len(labels))
    counts = np.array(list(json.loads((tmp_path / "out/class_pixels.json").read_text(encoding="utf-8")).values()))
    labelled = sum(int((np.array(Image.open(path)) > 0).sum()) for path in labels)
    assert counts[:, 2].sum() == labelled
    assert result.metrics["aAcc"].value == 100 * counts[:, 0].sum() / labelled


def four_simple_images(source: Path, target: Path) -> Path:
    """A COCO folder whose two splits are the same four images of another: those with the fewest objects, all of them large."""
    content = json.loads((source / "annotations/instances_train2017.json").read_text(encoding="utf-8"))
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)

    def is_simple(image: dict[str, Any]) -> bool:
        found, least = objects[image["id"]], 0.06 * image["width"] * image["height"]
        return bool(found) and all(item["area"] > least and not item["iscrowd"] for item in found)

    simple = filter(is_simple, content["images"])
    images = sorted(simple, key=lambda image: (len(objects[image["id"]]), image["file_name"]))[:4]
    assert len(images) == 4
    kept = {**content, "images": images, "annotations": [item for image in images for item in objects[image["id"]]]}
    (target / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (target / split).mkdir()
        for image in images:
            shutil.copy(source / "train2017" / image["file_name"], target / split)
        (target / f"annotations/instances_{split}.json").write_text(json.dumps(kept), encoding="utf-8")
    return target


@pytest.mark.long
def test_detection_overfits_four_images(real_data_dir: Path, tmp_path: Path) -> None:
    """Proves the whole path: targets, heads, decoding, scoring."""
    data = four_simple_images(real_data_dir / "coco", tmp_path / "coco")
    result = detect(data, tmp_path, iterations=200, batch_size=4, override=[*THIN_MASK_RCNN, *ONE_VIEW_OF_COCO])
    assert result.metrics["bbox_mAP"].value > 50
    assert result.metrics["segm_mAP"].value > 50


@pytest.mark.long
def test_segmentation_overfits_four_pairs(real_data_dir: Path, tmp_path: Path) -> None:
    """Proves the whole path: labels, head, decoding, counting."""
    source, data = real_data_dir / "ade/ADEChallengeData2016", tmp_path / "ade"
    maps = sorted((source / "annotations").glob("*/*.png"))
    simple = sorted(maps, key=lambda path: (len(np.unique(np.array(Image.open(path)))), path.name))[:4]
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (data / kind / split).mkdir(parents=True)
        for labels in simple:
            shutil.copy(labels, data / "annotations" / split)
            shutil.copy(source / "images" / labels.parent.name / f"{labels.stem}.jpg", data / "images" / split)
    result = segment(data, tmp_path, side=160, iterations=120, batch_size=4, override=[*THIN_FPN, *ONE_VIEW_OF_ADE])
    assert result.metrics["mIoU"].value > 60
