"""Short segmentation runs on real ADE20K pairs: metrics, falling losses, and four pairs overfitted."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from eval.result import Result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.task import evaluate
from tests.toy import write_toy_backbone

SMALL = ViTSpec(embed_dim=96, depth=4, num_heads=3, patch_size=16, image_size=224, class_token=False, final_norm=False)
CHANNELS = 64
# A Semantic FPN that one core can train in a minute or two.
THIN = [
    f"model.neck.out_channels={CHANNELS}",
    f"model.decode_head.in_channels=[{CHANNELS},{CHANNELS},{CHANNELS},{CHANNELS}]",
    f"model.decode_head.channels={CHANNELS}",
    "optim_wrapper.optimizer.lr=2e-3",
]
# Each time the same scale and colours, unflipped, nothing dropped; the crop is square and moves. AdjustGamma's default is 1.
ONE_VIEW = [
    "train_dataloader.dataset.pipeline.2.ratio_range=[1,1]",
    "train_dataloader.dataset.pipeline.4.prob=0",
    "train_dataloader.dataset.pipeline.5.type=AdjustGamma",
    "model.backbone.drop_path_rate=0",
    "model.decode_head.dropout_ratio=0",
]


def fine_tune(data: Path, folder: Path, side: int, **options: Any) -> Result:
    backbone = write_toy_backbone(folder, SMALL)
    fixed: dict[str, Any] = {"device": "cpu", "workers": 0, "draw_images": 0}
    sides: dict[str, Any] = {"crop": side, "train_short_side": side, "test_short_side": side}
    return evaluate(SegmentationConfig(backbone=backbone, data=data, output=folder / "out", **fixed, **sides, **options))


def losses(folder: Path) -> list[float]:
    lines = (folder / "out" / "training" / "training.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.data
def test_a_few_dozen_updates_lower_the_loss(real_data_dir: Path, tmp_path: Path) -> None:
    """The augmentation is the published one."""
    data = real_data_dir / "ade" / "ADEChallengeData2016"
    result = fine_tune(data, tmp_path, side=64, iterations=36, batch_size=4, max_val_images=2, override=THIN)
    found = losses(tmp_path)
    assert len(found) == 36
    assert np.mean(found[-9:]) < 0.7 * np.mean(found[:9])
    assert list(result.metrics) == ["mIoU", "aAcc", "mAcc"]
    assert len(result.breakdown) == 150
    assert result.coverage == "subset"
    labels = sorted((data / "annotations" / "validation").iterdir())[:2]
    assert result.datasets["test"].num_items == len(labels)
    counts = np.array(list(json.loads((tmp_path / "out" / "class_pixels.json").read_text(encoding="utf-8")).values()))
    labelled = sum(int((np.array(Image.open(path)) > 0).sum()) for path in labels)
    assert counts[:, 2].sum() == labelled
    assert result.metrics["aAcc"].value == 100 * counts[:, 0].sum() / labelled


def simple_pairs(source: Path, count: int) -> list[Path]:
    """Label maps with the fewest classes, of both splits."""
    paths = sorted((source / "annotations").glob("*/*.png"))
    return sorted(paths, key=lambda path: (len(np.unique(np.array(Image.open(path)))), path.name))[:count]


@pytest.mark.data
@pytest.mark.long
def test_four_pairs_are_overfitted(real_data_dir: Path, tmp_path: Path) -> None:
    """Proves the whole path: labels, head, decoding, counting."""
    source, data = real_data_dir / "ade" / "ADEChallengeData2016", tmp_path / "ade"
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (data / kind / split).mkdir(parents=True)
        for labels in simple_pairs(source, 4):
            image = source / "images" / labels.parent.name / f"{labels.stem}.jpg"
            shutil.copy(labels, data / "annotations" / split)
            shutil.copy(image, data / "images" / split)
    result = fine_tune(data, tmp_path, side=160, iterations=120, batch_size=4, override=[*THIN, *ONE_VIEW])
    assert result.metrics["mIoU"].value > 60
