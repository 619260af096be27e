"""Every row of the ADE20K table: its published settings, and one update and one test image of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from backbones.spec import BackboneSpec, ViTSpec
from eval.openmmlab.batch import published_batch
from eval.result import Protocol
from eval.segmentation.config import Head, SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.experiment import base_config, resolve
from eval.segmentation.protocol import describe_protocol
from eval.segmentation.task import evaluate
from tests.eval.rows import ROWS, toy
from tests.toy import write_toy_backbone

SYNC_BATCH_NORM = {"type": "SyncBN", "requires_grad": True}

COMMON = {
    "iterations": 40_000,
    "batch_size": 16,
    "batch_norm_images": 16,
    "precision": "float32",
    "crop": [512, 512],
    "test_scale": [2048, 512],
    "test_mode": "whole",
    "neck.type": "FPN",
    "neck.out_channels": 256,
    "head.type": "FPNHead",
    "head.channels": 128,
    "head.feature_strides": [4, 8, 16, 32],
    "head.norm_cfg": SYNC_BATCH_NORM,
}
ADAMW = {
    "warmup_iterations": 1500,
    "warmup_factor": 1e-6,
    "poly_power": 1.0,
    "min_learning_rate": 0.0,
    "optimiser": "AdamW",
    "learning_rate": 6e-5,
    "weight_decay": 0.01,
    "drop_path_rate": 0.1,
}
VIT = {
    **COMMON,
    **ADAMW,
    "undecayed": ["cls_token", "pos_embed"],
    "taps": [2, 5, 8, 11],
    "deconv_pyramid": False,
    "position_resize": "size",
    "position_image_size": 512,
}
UPERNET = {
    **{name: value for name, value in VIT.items() if not name.startswith(("neck.", "head."))},
    "iterations": 160_000,
    "head.type": "UPerHead",
    "head.channels": 512,
    "head.pool_scales": [1, 2, 3, 6],
    "head.norm_cfg": SYNC_BATCH_NORM,
    "auxiliary_head.type": "FCNHead",
    "auxiliary_head.in_index": 2,
    "auxiliary_head.channels": 256,
    "auxiliary_head.loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 0.4},
}
SWIN = {
    **COMMON,
    **ADAMW,
    "undecayed": ["norm", "relative_position_bias_table"],
    "taps": [0, 1, 2, 3],
    "norm_maps": True,
    "shift_all_stages": True,
}
# mmseg's FPN-R50 with its 40k schedule.
RESNET = {
    **COMMON,
    "warmup_iterations": 0,
    "poly_power": 0.9,
    "min_learning_rate": 1e-4,
    "optimiser": "SGD",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "undecayed": [],
    "taps": [0, 1, 2, 3],
    "sync_batch_norm": True,
}
PUBLISHED: dict[tuple[str, Head], dict[str, Any]] = {
    ("ViT-Ti/16", "fpn"): {**VIT, "num_heads": 3},
    ("ViT-S/16", "fpn"): {**VIT, "num_heads": 6},
    ("ViT-S/8", "fpn"): {**VIT, "num_heads": 6},
    ("DINOv3 ViT-S/16", "fpn"): {**{name: VIT[name] for name in VIT if not name.startswith("position_")}, "num_heads": 6},
    ("Swin-T", "fpn"): SWIN,
    ("ResNet-50", "fpn"): RESNET,
    ("ViT-S/16", "upernet"): {**UPERNET, "num_heads": 6},
}

# Thin layers, for speed.
THIN: dict[Head, list[str]] = {
    "fpn": ["model.neck.out_channels=8", "model.decode_head.in_channels=[8,8,8,8]", "model.decode_head.channels=8"],
    "upernet": ["model.decode_head.channels=8", "model.auxiliary_head.channels=8"],
}


def resolved(ade: Path, spec: BackboneSpec, **more: Any) -> tuple[Config, Protocol]:
    """As on 8 GPUs."""
    given = SegmentationConfig(**{"backbone": Path("b"), "data": ade, "output": Path("o"), **more})
    batch = given.plan_batch(published_batch(base_config(spec, given.head)), world_size=8)
    config = resolve(given, spec, check_data(ade), batch, "float32")
    return config, describe_protocol(config, given, spec, batch, torch.device("cuda"))


@pytest.mark.parametrize(("name", "head"), PUBLISHED)
def test_a_row_is_its_published_protocol(ade: Path, name: str, head: Head) -> None:
    config, protocol = resolved(ade, ROWS[name], head=head)
    published = PUBLISHED[name, head]
    assert {setting: protocol.settings[setting] for setting in published} == published
    assert protocol.deviations == {}
    assert config.train_cfg.max_iters == published["iterations"]
    assert protocol.name == {"fpn": "ade20k-semantic-fpn-40k", "upernet": "ade20k-upernet-160k"}[head]


def test_an_upernet_for_vits_only(ade: Path) -> None:
    with pytest.raises(
        ValueError, match="no segmentation config for a dinov3 backbone with the head upernet; there is one for: vit"
    ):
        resolved(ade, ROWS["DINOv3 ViT-S/16"], head="upernet")


def test_channels_are_the_backbones(ade: Path) -> None:
    assert resolved(ade, ROWS["Swin-T"])[0].model.neck.in_channels == [96, 192, 384, 768]
    assert resolved(ade, ROWS["ResNet-50"])[0].model.neck.in_channels == [256, 512, 1024, 2048]
    upernet = resolved(ade, ROWS["ViT-S/16"], head="upernet")[0].model
    assert (upernet.neck, upernet.decode_head.in_channels, upernet.auxiliary_head.in_channels) == (None, [384] * 4, 384)


def test_a_schedule_without_warm_up(ade: Path) -> None:
    (decay,) = resolved(ade, ROWS["ResNet-50"])[0].param_scheduler
    assert decay == {"type": "PolyLR", "power": 0.9, "eta_min": 1e-4, "begin": 0, "end": 40_001, "by_epoch": False}


@pytest.mark.parametrize(
    ("name", "decay_norm", "exempt"),
    [
        # Swin's rule matches its LayerNorms, but not the head's batch norm.
        ("Swin-T", None, ("LayerNorm", "LayerNorm2d")),
        ("Swin-T", True, ()),
        ("Swin-T", False, ("LayerNorm", "LayerNorm2d", "BatchNorm2d")),
        ("ResNet-50", None, ()),
        ("ResNet-50", False, ("BatchNorm2d",)),
    ],
)
def test_decay_of_norms(ade: Path, tmp_path: Path, name: str, decay_norm: bool | None, exempt: tuple[str, ...]) -> None:
    spec = toy(ROWS[name])
    file = write_toy_backbone(tmp_path, spec)
    config, _ = resolved(ade, spec, backbone=file, decay_norm=decay_norm, override=THIN["fpn"])
    config.model.decode_head.norm_cfg.type = "BN"
    config.model.backbone.sync_batch_norm = False
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    undecayed = {id(value) for group in groups if group["weight_decay"] == 0 for value in group["params"]}
    norms = {id(value) for layer in model.modules() if type(layer).__name__ in exempt for value in layer.parameters()}
    biases = {id(value) for name, value in model.named_parameters() if name.endswith("relative_position_bias_table")}
    assert undecayed == (norms | biases) & {id(value) for value in model.parameters() if value.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), PUBLISHED)
def test_one_update_and_one_test_image(name: str, head: Head, ade: Path, tmp_path: Path) -> None:
    spec = toy(ROWS[name])
    result = evaluate(
        SegmentationConfig(
            backbone=write_toy_backbone(tmp_path, spec),
            data=ade,
            output=tmp_path / "out",
            device="cpu",
            workers=0,
            head=head,
            batch_size=2,
            iterations=1,
            crop=64,
            train_short_side=64,
            test_short_side=64,
            max_val_images=1,
            draw_images=0,
            override=THIN[head],
        )
    )
    assert list(result.metrics) == ["mIoU", "aAcc", "mAcc"]
    weights = torch.load(tmp_path / "out" / result.artefacts["checkpoint"], weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    assert ("auxiliary_head.conv_seg.weight" in weights) == (head == "upernet")
    assert result.protocol.settings["taps"] == PUBLISHED[name, head]["taps"]
    if isinstance(spec, ViTSpec):
        assert weights["backbone.network.pos_embed"].shape[1] == (64 // spec.patch_size) ** 2
