"""Short detection runs on real COCO images: metrics, falling losses, and four images overfitted."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones.spec import ViTSpec
from eval.detection.config import DetectionConfig
from eval.detection.task import evaluate
from eval.result import Result
from tests.toy import write_toy_backbone

SMALL = ViTSpec(embed_dim=96, depth=4, num_heads=3, patch_size=16, image_size=192, class_token=False, final_norm=False)
CHANNELS = 32
# A Mask R-CNN that one core can train in a minute or two.
THIN = [
    "model.roi_head.bbox_head.fc_out_channels=128",
    "model.train_cfg.rcnn.sampler.num=64",
    "model.train_cfg.rpn_proposal.nms_pre=400",
    "model.train_cfg.rpn_proposal.max_per_img=200",
    "optim_wrapper.optimizer.lr=1e-3",
    *(
        f"model.{part}={CHANNELS}"
        for part in (
            "neck.out_channels",
            "rpn_head.in_channels",
            "rpn_head.feat_channels",
            "roi_head.bbox_roi_extractor.out_channels",
            "roi_head.mask_roi_extractor.out_channels",
            "roi_head.bbox_head.in_channels",
            "roi_head.mask_head.in_channels",
            "roi_head.mask_head.conv_out_channels",
        )
    ),
]
SHORT_SIDE, LONG_SIDE = 192, 320
# The same view of every image each time: all sizes are the test's, the crop is the whole image, nothing is flipped or dropped.
ONE_VIEW = [
    "train_dataloader.dataset.pipeline.2.prob=0",
    *(
        f"train_dataloader.dataset.pipeline.3.transforms.{step}.scales=[[{LONG_SIDE},{SHORT_SIDE}]]"
        for step in ("0.0", "1.0", "1.2")
    ),
    "train_dataloader.dataset.pipeline.3.transforms.1.1.crop_size=[2000,2000]",
    "model.backbone.drop_path_rate=0",
]
SMALLEST_SHARE = 0.06


def fine_tune(data: Path, folder: Path, **options: Any) -> Result:
    backbone = write_toy_backbone(folder, SMALL)
    fixed: dict[str, Any] = {"device": "cpu", "workers": 0, "short_side": SHORT_SIDE, "draw_images": 0}
    return evaluate(DetectionConfig(backbone=backbone, data=data, output=folder / "out", **fixed, **options))


def losses(folder: Path) -> list[float]:
    lines = (folder / "out" / "training" / "training.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.data
@pytest.mark.slow
def test_a_few_dozen_updates_lower_the_loss(real_data_dir: Path, tmp_path: Path) -> None:
    """With the published augmentation, on images of which hardly any comes twice."""
    result = fine_tune(
        real_data_dir / "coco", tmp_path, iterations=36, batch_size=2, device_batch_size=1, max_val_images=3, override=THIN
    )
    found = losses(tmp_path)
    assert len(found) == 36
    assert np.mean(found[-9:]) < 0.7 * np.mean(found[:9])
    assert len(result.metrics) == 6
    assert len(result.breakdown) == 80
    assert result.coverage == "subset"
    assert result.datasets["test"].num_items == 3


def simple_images(content: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The images with the fewest objects among those whose objects are all large."""
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)

    def is_simple(image: dict[str, Any]) -> bool:
        area = image["width"] * image["height"]
        found = objects[image["id"]]
        return bool(found) and all(item["area"] > SMALLEST_SHARE * area and not item["iscrowd"] for item in found)

    simple = sorted(filter(is_simple, content["images"]), key=lambda image: (len(objects[image["id"]]), image["file_name"]))
    assert len(simple) >= count, f"{len(simple)} images have only large objects"
    return simple[:count]


def only(images: list[dict[str, Any]], source: Path, target: Path) -> Path:
    """A COCO folder whose two splits are the same few training images of another."""
    content = json.loads((source / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    kept = {image["id"] for image in images}
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in kept]
    (target / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (target / split).mkdir()
        for image in images:
            shutil.copy(source / "train2017" / image["file_name"], target / split)
        path = target / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps({**content, "images": images, "annotations": annotations}), encoding="utf-8")
    return target


@pytest.mark.data
@pytest.mark.long
def test_four_images_are_overfitted(real_data_dir: Path, tmp_path: Path) -> None:
    """Proves the whole path: targets, heads, decoding, scoring."""
    source = real_data_dir / "coco"
    content = json.loads((source / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    data = only(simple_images(content, 4), source, tmp_path / "coco")
    result = fine_tune(data, tmp_path, iterations=200, batch_size=4, override=[*THIN, *ONE_VIEW])
    assert result.metrics["bbox_mAP"].value > 50
    assert result.metrics["segm_mAP"].value > 50
