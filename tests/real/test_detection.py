"""A short detection run on real COCO images."""

from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import Source, write_backbone_file
from backbones.spec import ViTSpec
from eval.detection.config import DetectionConfig
from eval.detection.task import evaluate

SOURCE = Source(format="timm", branch="none", file_name="toy.pth", sha256="0" * 64, epoch=-1)


@pytest.mark.data
@pytest.mark.slow
def test_fine_tuning_on_real_images_gives_six_figures(real_data_dir: Path, tmp_path: Path) -> None:
    spec = ViTSpec(embed_dim=48, depth=4, num_heads=3, patch_size=16, image_size=224, class_token=False, final_norm=False)
    torch.manual_seed(0)
    write_backbone_file(tmp_path / "toy.safetensors", spec, SOURCE, build_backbone(spec).state_dict())
    result = evaluate(
        DetectionConfig(
            backbone=tmp_path / "toy.safetensors",
            data=real_data_dir / "coco",
            output=tmp_path / "out",
            device="cpu",
            workers=0,
            iterations=2,
            batch_size=2,
            short_side=96,
            max_val_images=3,
            override=["model.train_cfg.rcnn.sampler.num=32"],
        )
    )
    assert len(result.metrics) == 6
    assert len(result.breakdown) == 80
    assert result.coverage == "subset"
    assert result.datasets["test"].num_items == 3
