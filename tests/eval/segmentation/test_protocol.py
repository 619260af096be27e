"""What a result records of its protocol."""

import json
from pathlib import Path
from typing import Any

import torch

from backbones.spec import ViTSpec
from eval.openmmlab.batch import published_batch
from eval.result import Protocol
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.experiment import base_config, resolve
from eval.segmentation.protocol import describe_protocol

VIT_SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=False, final_norm=False)

LOSS = {"type": "CrossEntropyLoss", "use_sigmoid": False}


def protocol(ade: Path, device: str = "cuda", world_size: int = 4, **more: Any) -> Protocol:
    options = SegmentationConfig(backbone=Path("b.safetensors"), data=ade, output=Path("out"), **more)
    batch = options.plan_batch(published_batch(base_config(VIT_SMALL, options.head)), world_size)
    config = resolve(options, VIT_SMALL, check_data(ade), batch, options.precision)
    return describe_protocol(config, options, VIT_SMALL, batch, torch.device(device))


def test_the_published_protocol_has_no_deviations(ade: Path) -> None:
    found = protocol(ade)
    assert found.deviations == {}
    assert found.settings["num_heads"] == 6
    assert found.settings["undecayed"] == ["cls_token", "pos_embed"]
    # One device with the whole batch sees as many images in its batch norm as four with SyncBN.
    assert protocol(ade, world_size=1).deviations == {}


def test_every_change_is_a_deviation(ade: Path) -> None:
    found = protocol(
        ade,
        iterations=100,
        batch_size=8,
        crop=256,
        train_short_side=256,
        test_short_side=128,
        taps=[3, 5, 7, 11],
        num_heads=8,
        decay_norm=False,
        precision="bfloat16",
        override=["model.decode_head.dropout_ratio=0", "model.decode_head.loss_decode.loss_weight=2"],
    ).deviations
    assert found == {
        "iterations": [40_000, 100],
        "warmup_iterations": [1500, 10],
        "undecayed": [["cls_token", "pos_embed"], ["cls_token", "norm layers", "pos_embed"]],
        "precision": ["float32", "bfloat16"],
        "taps": [[2, 5, 8, 11], [3, 5, 7, 11]],
        "num_heads": [6, 8],
        "position_image_size": [512, 256],
        "head.dropout_ratio": [0.1, 0],
        "head.loss_decode": [{**LOSS, "loss_weight": 1.0}, {**LOSS, "loss_weight": 2}],
        "train_scale": [[2048, 512], [1024, 256]],
        "crop": [[512, 512], [256, 256]],
        "test_scale": [[2048, 512], [512, 128]],
        "batch_size": [16, 8],
        "batch_norm_images": [16, 8],
        "model.decode_head.dropout_ratio": [0.1, 0],
        "model.decode_head.loss_decode.loss_weight": [1.0, 2],
    }


def test_smaller_parts_change_the_batch_norm_only(ade: Path) -> None:
    assert protocol(ade, world_size=1, device_batch_size=2).deviations == {"batch_norm_images": [16, 2]}
    assert protocol(ade, device="cpu", world_size=4).deviations == {"batch_norm_images": [16, 4]}


def test_settings_survive_the_result_file(ade: Path) -> None:
    settings = protocol(ade).settings
    assert json.loads(json.dumps(settings)) == settings
