"""The resolved config and what a result records of it: rows of the ADE20K tables, options, deviations, weight decay.

`tests/eval/test_protocol_tables.py` holds the published constants against docs/protocols.md.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn

from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from eval.openmmlab.config import plain
from eval.result import Protocol
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.protocol import resolve
from tests.eval.rows import ROWS, THIN_HEADS, VIT_SMALL, check_decay, toy
from tests.toy import write_toy_backbone

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def resolved(
    ade: Path, spec: BackboneSpec = VIT_SMALL, world_size: int = 8, device: torch.device = GPU, **more: Any
) -> tuple[Config, Protocol]:
    """The config as published, on 8 GPUs unless told otherwise."""
    given = SegmentationConfig(**{"backbone": Path("b"), "data": ade, "output": Path("o"), **more})
    return resolve(given, spec, check_data(ade, *given.image_limits), device, world_size)


def build_model(config: Config) -> Any:
    config.model.decode_head.norm_cfg.type = "BN"
    config.model.backbone.sync_batch_norm = False
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build(config.model)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_its_published_protocol(ade: Path, name: str) -> None:
    config, protocol = resolved(ade, ROWS[name])
    assert (protocol.name, protocol.deviations, config.train_cfg.max_iters) == ("ade20k-semantic-fpn-40k", {}, 40_000)
    assert json.loads(json.dumps(protocol.settings)) == protocol.settings
    widths = {"ViT-Ti/16": [192] * 4, "Swin-T": [96, 192, 384, 768], "ResNet-50": [256, 512, 1024, 2048]}
    assert config.model.neck.in_channels == widths.get(name, [384] * 4)


def test_an_upernet_for_vits_only(ade: Path) -> None:
    config, protocol = resolved(ade, head="upernet")
    assert (protocol.name, protocol.deviations, config.train_cfg.max_iters) == ("ade20k-upernet-160k", {}, 160_000)
    assert (config.model.decode_head.in_channels, config.model.auxiliary_head.in_channels) == ([384] * 4, 384)
    message = r"no segmentation config for a resnet backbone with the head upernet; there is one for: vit$"
    with pytest.raises(ValueError, match=message):
        resolved(ade, ROWS["ResNet-50"], head="upernet")


def test_learning_rate_follows_the_published_formula(ade: Path) -> None:
    """mmcv 1.x: polynomial over all iterations, times a linear warm-up of 1500 from 1e-6."""
    config, _ = resolved(ade)
    assert len(resolved(ade, iterations=5)[0].param_scheduler) == 1  # too short for a warm-up
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build({**entry, "optimizer": optimiser}) for entry in config.param_scheduler]
    wanted, found = [], []
    for iteration in range(40_000):
        rise = 1 - (1 - min(iteration / 1500, 1)) * (1 - 1e-6)
        wanted.append(6e-5 * (1 - iteration / 40_000) * rise)
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        for scheduler in schedulers:
            scheduler.step()
    # Errors of the step-by-step products add up to about 1e-12 relative; a schedule off by one iteration is off by 2.5e-5.
    assert found == pytest.approx(wanted, rel=1e-9)


def test_maps_positions_and_head(ade: Path, tmp_path: Path) -> None:
    """Four stride-16 maps go into the FPN as they are; the head's strides upsample all the same; output at 1/16."""
    file = write_toy_backbone(tmp_path, spec := replace(toy(ROWS["ViT-S/16"]), image_size=224, class_token=True))
    model = build_model(resolved(ade, spec, backbone=file, crop=128)[0]).eval()
    # 14 x 14 positions to 8 x 8, once, bicubically to the exact size: not by DINO's scale factor.
    stored_1Dhw = read_backbone_file(file).state_dict["pos_embed"][:, 1:].reshape(1, 14, 14, 48).permute(0, 3, 1, 2)
    wanted_1Dhw = nn.functional.interpolate(stored_1Dhw, size=(8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.backbone.network.pos_embed[:, 1:], wanted_1Dhw.flatten(2).transpose(1, 2))
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 64, 70))
        assert [tuple(found.shape) for found in maps] == [(1, 48, 4, 5)] * 4
        levels = model.neck(maps)
        assert [tuple(found.shape) for found in levels] == [(1, 256, 4, 5)] * 4
        branches = [head(level) for head, level in zip(model.decode_head.scale_heads, levels, strict=True)]
        assert [tuple(found.shape[-2:]) for found in branches] == [(4, 5), (8, 10), (16, 20), (32, 40)]
        assert model.decode_head(levels).shape == (1, 150, 4, 5)


def test_parts_of_the_batch_and_their_statistics(ade: Path) -> None:
    assert resolved(ade, world_size=16)[1].deviations == resolved(ade, world_size=1)[1].deviations == {}
    config, protocol = resolved(ade, world_size=2, device_batch_size=4)
    assert (config.train_dataloader.batch_size, config.optim_wrapper.accumulative_counts) == (8, 2)
    assert protocol.deviations == {"batch_norm_images": [16, 8]}
    assert resolved(ade, world_size=4, device=CPU)[1].deviations == {"batch_norm_images": [16, 4]}


def test_options_reach_the_config(ade: Path) -> None:
    sides: dict[str, Any] = {"crop": 100, "train_short_side": 64, "test_short_side": 48}
    config, _ = resolved(ade, iterations=30, max_train_images=2, workers=0, **sides)
    assert [entry.end for entry in config.param_scheduler] == [4, 31]  # a tenth of the iterations warms up
    assert plain(config.model.data_preprocessor.size) == [100, 100]
    assert config.model.backbone.position_image_size == 112  # whole patches
    assert (config.train_dataloader.dataset.indices, config.test_dataloader.dataset.indices) == (2, 3)
    assert config.train_dataloader.num_workers == 0


def test_one_image_a_process_has_no_statistics_where_uper_net_pools_to_one_pixel(ade: Path) -> None:
    """It died in its first update."""
    alone: dict[str, Any] = {"head": "upernet", "batch_size": 2, "device_batch_size": 1}
    for world_size, device in ((1, GPU), (2, CPU)):
        with pytest.raises(ValueError, match="; give --device-batch-size 2"):
            resolved(ade, world_size=world_size, device=device, **alone)
    resolved(ade, world_size=2, device=GPU, **alone)


def test_every_change_is_a_deviation(ade: Path) -> None:
    sides: dict[str, Any] = {"crop": 256, "train_short_side": 256, "test_short_side": 128}
    more: dict[str, Any] = {"taps": [3, 5, 7, 11], "num_heads": 8, "decay_norm": False, "precision": "bfloat16"}
    overrides = ["model.decode_head.dropout_ratio=0", "model.decode_head.loss_decode.loss_weight=2"]
    _, protocol = resolved(ade, world_size=4, iterations=100, batch_size=8, override=overrides, **sides, **more)
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False}
    assert protocol.deviations == {
        "iterations": [40_000, 100],
        "warmup_iterations": [1500, 10],
        "undecayed": [["cls_token", "pos_embed"], ["cls_token", "norm layers", "pos_embed"]],
        "precision": ["float32", "bfloat16"],
        "taps": [[2, 5, 8, 11], [3, 5, 7, 11]],
        "num_heads": [6, 8],
        "position_image_size": [512, 256],
        "head.dropout_ratio": [0.1, 0],
        "head.loss_decode": [{**loss, "loss_weight": 1.0}, {**loss, "loss_weight": 2}],
        "train_scale": [[2048, 512], [1024, 256]],
        "crop": [[512, 512], [256, 256]],
        "test_scale": [[2048, 512], [512, 128]],
        "batch_size": [16, 8],
        "batch_norm_images": [16, 8],
        "model.decode_head.dropout_ratio": [0.1, 0],
        "model.decode_head.loss_decode.loss_weight": [1.0, 2],
    }


@pytest.mark.parametrize(
    ("name", "decay_norm", "exempt"),
    [
        # The named trap: the published run of a ViT decays LayerNorm and BatchNorm.
        ("ViT-S/16", None, ()),
        ("ViT-S/16", False, ("LayerNorm", "BatchNorm2d")),
        # Swin's rule matches its LayerNorms, but not the head's batch norm.
        ("Swin-T", None, ("LayerNorm", "LayerNorm2d")),
        ("Swin-T", True, ()),
        ("Swin-T", False, ("LayerNorm", "LayerNorm2d", "BatchNorm2d")),
        ("ResNet-50", None, ()),
        ("ResNet-50", False, ("BatchNorm2d",)),
    ],
)
def test_decay_of_norms_and_positions(
    ade: Path, tmp_path: Path, name: str, decay_norm: bool | None, exempt: tuple[str, ...]
) -> None:
    spec = toy(ROWS[name])
    file = write_toy_backbone(tmp_path, spec)
    config, _ = resolved(ade, spec, backbone=file, decay_norm=decay_norm, override=THIN_HEADS["fpn"])
    check_decay(build_model(config), config.optim_wrapper, exempt)
