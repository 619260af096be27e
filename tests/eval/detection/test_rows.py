"""Every row of the COCO table: its published settings, and one update and one test image of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from backbones.spec import BackboneSpec, PlainViTSpec, SwinSpec
from eval.detection.config import DetectionConfig
from eval.detection.data import Split, check_data
from eval.detection.experiment import base_config, resolve, training_precision
from eval.detection.protocol import describe_protocol
from eval.detection.task import evaluate
from eval.openmmlab.batch import published_batch
from eval.result import Protocol
from tests.eval.coco_splits import full_coco
from tests.eval.rows import ROWS, toy
from tests.toy import write_toy_backbone

GPU = torch.device("cuda")
SYNC_BATCH_NORM = {"type": "SyncBN", "requires_grad": True}

VIT = {
    "epochs": 12,
    "decay_after": [8 / 12, 11 / 12],
    "precise_batch_norm": 0,
    "batch_size": 8,
    "batch_norm_images": 8,
    "images_padded_together": 1,
    "optimiser": "AdamW",
    "learning_rate": 5e-5,
    "weight_decay": 0.05,
    "undecayed": ["cls_token", "norm", "pos_embed"],
    "taps": [3, 5, 7, 11],
    "deconv_pyramid": True,
    "position_resize": "dino",
    "drop_path_rate": 0.05,
    "box_head.type": "Shared2FCBBoxHead",
    "crop": [384, 600],
}
SWIN = {
    "epochs": 12,
    "decay_after": [8 / 12, 11 / 12],
    "batch_size": 16,
    "images_padded_together": 2,
    "optimiser": "AdamW",
    "learning_rate": 1e-4,
    "betas": [0.9, 0.999],
    "weight_decay": 0.05,
    "undecayed": ["norm", "relative_position_bias_table"],
    "taps": [0, 1, 2, 3],
    "num_heads": [3, 6, 12, 24],
    "drop_path_rate": 0.1,
    "norm_maps": True,
    "shift_all_stages": True,
    "box_head.type": "Shared2FCBBoxHead",
    "train_scales_before_crop": [[1333, 400], [1333, 500], [1333, 600]],
    "crop": [384, 600],
}
# Detectron2's R50-FPN 1x, with SyncBN in all components.
RESNET = {
    "iterations": 90_000,
    "decay_after": [60_000 / 90_000, 80_000 / 90_000],
    "decay_factor": 0.1,
    "warmup_iterations": 1000,
    "warmup_factor": 0.001,
    "precise_batch_norm": 200,
    "batch_size": 16,
    "batch_norm_images": 16,
    "images_padded_together": 2,
    "optimiser": "SGD",
    "learning_rate": 0.02,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "undecayed": ["norm layers"],
    "gradient_clipping": None,
    "precision": "float32",
    "taps": [0, 1, 2, 3],
    "sync_batch_norm": True,
    "neck.norm_cfg": SYNC_BATCH_NORM,
    "box_head.type": "Shared4Conv1FCBBoxHead",
    "box_head.conv_out_channels": 256,
    "box_head.fc_out_channels": 1024,
    "box_head.norm_cfg": SYNC_BATCH_NORM,
    "mask_head.norm_cfg": SYNC_BATCH_NORM,
    "train_scales": [[1333, side] for side in (640, 672, 704, 736, 768, 800)],
    "train_scales_before_crop": None,
    "crop": None,
    "flip": 0.5,
    "test_scale": [1333, 800],
}
PUBLISHED = {
    "ViT-Ti/16": {**VIT, "num_heads": 3},
    "ViT-S/16": {**VIT, "num_heads": 6},
    "ViT-S/8": {**{setting: VIT[setting] for setting in VIT if setting != "batch_norm_images"}, "num_heads": 6},
    "DINOv3 ViT-S/16": {**{setting: VIT[setting] for setting in VIT if setting != "position_resize"}, "num_heads": 6},
    "Swin-T": SWIN,
    "ResNet-50": RESNET,
}

CHANNELS = 16
# Mask R-CNN with thin layers, for speed.
THIN = [
    f"model.neck.out_channels={CHANNELS}",
    f"model.rpn_head.in_channels={CHANNELS}",
    f"model.rpn_head.feat_channels={CHANNELS}",
    f"model.roi_head.bbox_roi_extractor.out_channels={CHANNELS}",
    f"model.roi_head.mask_roi_extractor.out_channels={CHANNELS}",
    f"model.roi_head.bbox_head.in_channels={CHANNELS}",
    f"model.roi_head.bbox_head.fc_out_channels={CHANNELS}",
    f"model.roi_head.mask_head.in_channels={CHANNELS}",
    f"model.roi_head.mask_head.conv_out_channels={CHANNELS}",
]


def resolved(spec: BackboneSpec, splits: dict[str, Split], **options: Any) -> tuple[Config, Protocol]:
    """As on 8 GPUs."""
    given = DetectionConfig(**{"backbone": Path("b"), "data": Path("d"), "output": Path("o"), **options})
    batch = given.plan_batch(published_batch(base_config(spec)), world_size=8)
    config = resolve(given, spec, splits, batch, "float32")
    return config, describe_protocol(config, given, spec, batch, GPU)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_is_its_published_protocol(name: str) -> None:
    config, protocol = resolved(ROWS[name], full_coco())
    assert {setting: protocol.settings[setting] for setting in PUBLISHED[name]} == PUBLISHED[name]
    assert protocol.deviations == {}
    assert config.train_dataloader.batch_size == PUBLISHED[name]["batch_size"] / 8


def test_the_necks_channels_are_the_backbones() -> None:
    channels = {name: list(resolved(spec, full_coco())[0].model.neck.in_channels) for name, spec in ROWS.items()}
    assert channels == {
        "ViT-Ti/16": [192] * 4,
        "ViT-S/16": [384] * 4,
        "ViT-S/8": [384] * 4,
        "DINOv3 ViT-S/16": [384] * 4,
        "Swin-T": [96, 192, 384, 768],
        "ResNet-50": [256, 512, 1024, 2048],
    }


def test_the_resnets_length_is_in_updates() -> None:
    config, _ = resolved(ROWS["ResNet-50"], full_coco())
    assert config.train_cfg.max_iters == 90_000
    assert config.param_scheduler[1].milestones == [60_000, 80_000]
    assert config.custom_hooks == [{"type": "PreciseBatchNormHook", "iterations": 200}]
    config, protocol = resolved(ROWS["ResNet-50"], full_coco(), epochs=12)
    assert config.train_cfg.max_iters == 12 * 7330
    assert protocol.deviations == {"iterations": [90_000, 87_960]}
    config, protocol = resolved(ROWS["ResNet-50"], full_coco(), iterations=90)
    assert protocol.deviations == {
        "iterations": [90_000, 90],
        "warmup_iterations": [1000, 9],
        "precise_batch_norm": [200, 9],
    }


def test_half_precision_where_it_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    given = DetectionConfig(backbone=Path("b"), data=Path("d"), output=Path("o"))
    found = {name: training_precision(given, spec, GPU) for name, spec in ROWS.items()}
    assert found == {name: "float32" if name == "ResNet-50" else "bfloat16" for name in ROWS}


def test_heads_and_strides_that_do_not_fit_are_refused() -> None:
    assert resolved(ROWS["ViT-S/16"], full_coco(), num_heads=8)[1].settings["num_heads"] == 8
    with pytest.raises(ValueError, match="num_heads=5 does not divide embed_dim=384"):
        resolved(ROWS["ViT-S/16"], full_coco(), num_heads=5)
    with pytest.raises(ValueError, match="num_heads=4 can be chosen for a ViT only; this backbone is a swin"):
        resolved(ROWS["Swin-T"], full_coco(), num_heads=4)
    with pytest.raises(ValueError, match="num_heads=4 can be chosen for a ViT only; this backbone is a dinov3"):
        resolved(ROWS["DINOv3 ViT-S/16"], full_coco(), num_heads=4)
    with pytest.raises(ValueError, match=r"strides \[2, 4, 8, 16\]; Mask R-CNN takes \[4, 8, 16, 32\]"):
        resolved(replace(ROWS["Swin-T"], patch_size=2), full_coco())
    with pytest.raises(ValueError, match="patch size 16 and 8, not 14"):
        resolved(replace(ROWS["ViT-S/16"], patch_size=14), full_coco())


def _built(config: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return revert_sync_batchnorm(MODELS.build(config.model))


@pytest.mark.parametrize("name", ["Swin-T", "ResNet-50"])
def test_norms_and_position_biases_are_not_decayed(name: str, coco: Path, tmp_path: Path) -> None:
    spec = toy(ROWS[name])
    config, _ = resolved(spec, check_data(coco), backbone=write_toy_backbone(tmp_path, spec), override=THIN)
    model = _built(config)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    undecayed = {id(value) for group in groups if group["weight_decay"] == 0 for value in group["params"]}
    norms = {id(value) for layer in model.modules() if "Norm" in type(layer).__name__ for value in layer.parameters()}
    biases = {id(value) for name, value in model.named_parameters() if name.endswith("relative_position_bias_table")}
    trained = {id(value) for value in model.parameters() if value.requires_grad}
    assert undecayed == (norms | biases) & trained
    assert bool(biases) == isinstance(spec, SwinSpec)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_one_update_and_one_test_image(name: str, coco: Path, tmp_path: Path) -> None:
    spec = toy(ROWS[name])
    thin = [*THIN, "model.test_cfg.rpn.max_per_img=20", "model.train_cfg.rcnn.sampler.num=32"]
    if name == "ResNet-50":
        thin.append(f"model.roi_head.bbox_head.conv_out_channels={CHANNELS}")
    result = evaluate(
        DetectionConfig(
            backbone=write_toy_backbone(tmp_path, spec),
            data=coco,
            output=tmp_path / "out",
            device="cpu",
            workers=0,
            batch_size=2,
            iterations=1,
            short_side=64,
            max_val_images=1,
            draw_images=0,
            override=thin,
        )
    )
    assert len(result.metrics) == 6
    weights = torch.load(tmp_path / "out" / result.artefacts["checkpoint"], weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    assert any(key.startswith("backbone.pyramid.") for key in weights) == isinstance(spec, PlainViTSpec)
    assert ("backbone.map_norms.3.weight" in weights) == isinstance(spec, SwinSpec)
    if name == "ResNet-50":
        # After the update statistics were measured afresh, on one batch: a tenth of the updates, rounded up.
        counted = {key: int(value) for key, value in weights.items() if key.endswith("num_batches_tracked")}
        assert set(counted.values()) == {1}
        assert {key.split(".")[0] for key in counted} == {"backbone", "neck", "roi_head"}
    assert result.protocol.settings["taps"] == PUBLISHED[name]["taps"]
