from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.spec import BackboneSpec, SwinSpec, ViTSpec
from eval.detection.config import DetectionConfig
from eval.detection.data import check_data
from eval.detection.experiment import base_config, has_batch_norm, resolve
from eval.detection.protocol import describe_protocol
from eval.openmmlab.batch import published_batch
from eval.result import Protocol

SWIN_TINY = SwinSpec(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7, image_size=224)
VIT_SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=False, final_norm=False)


def protocol(coco: Path, device: str = "cuda", world_size: int = 8, spec: BackboneSpec = VIT_SMALL, **options: Any) -> Protocol:
    given = DetectionConfig(backbone=Path("b.safetensors"), data=coco, output=Path("out"), **options)
    base = base_config(spec)
    batch = given.plan_batch(published_batch(base), world_size, has_batch_norm(base, spec))
    # The toy data's 12 epochs of one update are too short for the published warm-up.
    config = resolve(given, spec, check_data(coco), batch, "float32")
    return describe_protocol(config, given, spec, batch, torch.device(device))


def test_the_published_protocol_has_no_deviations(coco: Path) -> None:
    found = protocol(coco, warmup_iterations=1000)
    assert found.deviations == {}
    assert found.settings["num_heads"] == 6
    assert found.settings["undecayed"] == ["cls_token", "norm", "pos_embed"]
    # One device with the whole batch sees as many images in its batch norm as eight with SyncBN, but pads them to one size.
    assert protocol(coco, world_size=1, warmup_iterations=1000).deviations == {"images_padded_together": [1, 8]}


@pytest.mark.parametrize("world_size", [1, 2, 8])
@pytest.mark.parametrize("spec", [replace(VIT_SMALL, patch_size=8), SWIN_TINY])
def test_without_batch_norm_any_number_of_devices_repeats_the_protocol(spec: BackboneSpec, world_size: int, coco: Path) -> None:
    """Of such networks, small parts were called a deviation, and images padded to one size were not."""
    found = protocol(coco, spec=spec, world_size=world_size, warmup_iterations=1000)
    assert found.deviations == {}
    assert "batch_norm_images" not in found.settings
    together = protocol(coco, spec=spec, world_size=1, device_batch_size=4, warmup_iterations=1000)
    assert set(together.deviations) == {"images_padded_together"}


def test_every_change_is_a_deviation(coco: Path) -> None:
    changed = protocol(
        coco,
        warmup_iterations=0,
        epochs=1,
        batch_size=16,
        taps=[2, 5, 8, 11],
        short_side=400,
        override=["model.test_cfg.rcnn.score_thr=0.01", "optim_wrapper.optimizer.lr=1e-4"],
    ).deviations
    assert changed["epochs"] == [12, 1]
    assert changed["warmup_iterations"] == [1000, 0]
    assert changed["batch_size"] == [8, 16]
    assert changed["taps"] == [[3, 5, 7, 11], [2, 5, 8, 11]]
    assert changed["test_scale"] == [[1333, 800], [666, 400]]
    assert changed["model.test_cfg.rcnn.score_thr"] == [0.05, 0.01]
    assert {"train_scales", "train_scales_before_crop", "crop", "batch_norm_images", "rcnn_test", "learning_rate"} <= set(
        changed
    )


def test_smaller_parts_change_the_batch_norm_only(coco: Path) -> None:
    assert protocol(coco, world_size=1, device_batch_size=1, warmup_iterations=1000).deviations == {"batch_norm_images": [8, 1]}
    assert protocol(coco, device="cpu", world_size=8, warmup_iterations=1000).deviations == {"batch_norm_images": [8, 1]}


def test_the_published_head_count_can_be_repeated(coco: Path) -> None:
    assert protocol(coco, num_heads=8, warmup_iterations=1000).settings["num_heads"] == 8
