"""A short segmentation run on real ADE20K images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.build import build_backbone
from backbones.file import Source, write_backbone_file
from backbones.spec import ViTSpec
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.task import evaluate

SOURCE = Source(format="timm", branch="none", file_name="toy.pth", sha256="0" * 64, epoch=-1)


@pytest.mark.data
def test_fine_tuning_on_real_images_gives_three_figures(real_data_dir: Path, tmp_path: Path) -> None:
    spec = ViTSpec(embed_dim=48, depth=4, num_heads=3, patch_size=16, image_size=224, class_token=False, final_norm=False)
    data = real_data_dir / "ade" / "ADEChallengeData2016"
    torch.manual_seed(0)
    write_backbone_file(tmp_path / "toy.safetensors", spec, SOURCE, build_backbone(spec).state_dict())
    result = evaluate(
        SegmentationConfig(
            backbone=tmp_path / "toy.safetensors",
            data=data,
            output=tmp_path / "out",
            device="cpu",
            workers=0,
            iterations=4,
            batch_size=2,
            crop=64,
            train_short_side=64,
            test_short_side=64,
            max_val_images=2,
        )
    )
    assert list(result.metrics) == ["mIoU", "aAcc", "mAcc"]
    assert len(result.breakdown) == 150
    assert result.coverage == "subset"
    labels = sorted((data / "annotations" / "validation").iterdir())[:2]
    assert result.datasets["test"].num_items == len(labels)
    counts = np.array(list(json.loads((tmp_path / "out" / "class_pixels.json").read_text(encoding="utf-8")).values()))
    labelled = sum(int((np.array(Image.open(path)) > 0).sum()) for path in labels)
    assert counts[:, 2].sum() == labelled
    assert result.metrics["aAcc"].value == 100 * counts[:, 0].sum() / labelled
