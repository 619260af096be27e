"""The resolved config against the published constants, on the built model and its real optimiser."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn

from backbones.build import build_backbone
from backbones.file import Source, read_backbone_file, write_backbone_file
from backbones.spec import ResNetSpec, ViTSpec
from eval.openmmlab.batch import BatchPlan, published_batch
from eval.openmmlab.config_values import lookup, plain
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.experiment import base_config, resolve

VIT_SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=True, final_norm=False)

# What the published run states (alinlab/SelfPatch 81aef149, segmentation/configs), by path in the resolved config.
PUBLISHED: dict[str, Any] = {
    "model.type": "EncoderDecoder",
    "model.data_preprocessor.mean": [123.675, 116.28, 103.53],
    "model.data_preprocessor.std": [58.395, 57.12, 57.375],
    "model.data_preprocessor.bgr_to_rgb": True,
    "model.data_preprocessor.size": [512, 512],
    "model.data_preprocessor.pad_val": 0,
    "model.data_preprocessor.seg_pad_val": 255,
    "model.pretrained": None,
    "model.backbone.type": "BackboneFromFile",
    "model.backbone.taps": [2, 5, 8, 11],
    "model.backbone.num_heads": None,
    "model.backbone.drop_path_rate": 0.1,
    "model.backbone.position_resize": "size",
    "model.backbone.position_image_size": 512,
    "model.neck": {"type": "FPN", "in_channels": [384] * 4, "out_channels": 256, "num_outs": 4},
    "model.decode_head.type": "FPNHead",
    "model.decode_head.in_channels": [256] * 4,
    "model.decode_head.in_index": [0, 1, 2, 3],
    "model.decode_head.feature_strides": [4, 8, 16, 32],
    "model.decode_head.channels": 128,
    "model.decode_head.dropout_ratio": 0.1,
    "model.decode_head.num_classes": 150,
    "model.decode_head.norm_cfg": {"type": "SyncBN", "requires_grad": True},
    "model.decode_head.align_corners": False,
    "model.decode_head.loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    "model.test_cfg": {"mode": "whole"},
    "optim_wrapper.type": "OptimWrapper",
    "optim_wrapper.optimizer": {"type": "AdamW", "lr": 6e-5, "betas": [0.9, 0.999], "weight_decay": 0.01},
    "train_cfg.max_iters": 40_000,
    "train_dataloader.batch_size": 16,
    "train_dataloader.sampler.type": "InfiniteSampler",
    "train_dataloader.dataset.type": "ADE20KDataset",
    "train_dataloader.dataset.pipeline": [
        {"type": "ReadImage"},
        {"type": "ReadLabels"},
        {"type": "RandomResize", "scale": [2048, 512], "ratio_range": [0.5, 2.0], "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": [512, 512], "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ],
    "test_dataloader.batch_size": 1,
    "test_dataloader.dataset.data_prefix": {"img_path": "images/validation", "seg_map_path": "annotations/validation"},
    "test_dataloader.dataset.pipeline": [
        {"type": "ReadImage"},
        {"type": "Resize", "scale": [2048, 512], "keep_ratio": True},
        {"type": "ReadLabels"},
        {"type": "PackSegInputs"},
    ],
}


@pytest.fixture(scope="module")
def vit_small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbones") / "vit_small.safetensors"
    source = Source(format="timm", branch="none", file_name="none", sha256="0" * 64, epoch=-1)
    write_backbone_file(path, VIT_SMALL, source, build_backbone(VIT_SMALL).state_dict())
    return path


def resolved(ade: Path, world_size: int = 1, backbone: Path = Path("b.safetensors"), **more: Any) -> Config:
    options = SegmentationConfig(backbone=backbone, data=ade, output=Path("out"), **more)
    splits = check_data(ade, options.max_train_images, options.max_val_images)
    batch = options.plan_batch(published_batch(base_config(VIT_SMALL, options.head)), world_size)
    return resolve(options, VIT_SMALL, splits, batch, "float32")


def build_model(config: Config) -> nn.Module:
    config.model.decode_head.norm_cfg.type = "BN"
    with DefaultScope.overwrite_default_scope("mmseg"):
        model: nn.Module = MODELS.build(config.model)
    return model


def test_the_resolved_config_is_the_published_one(ade: Path) -> None:
    config = resolved(ade)
    assert {path: plain(lookup(config, path)) for path in PUBLISHED} == PUBLISHED


def test_pipelines_are_mmsegs_but_for_the_readers(ade: Path) -> None:
    stock = Config.fromfile(str(Path(__import__("mmseg").__file__).parent / ".mim/configs/_base_/datasets/ade20k.py"))
    config = resolved(ade)
    for loader in ("train_dataloader", "test_dataloader"):
        theirs = [entry for entry in stock[loader].dataset.pipeline if not entry.type.startswith("Load")]
        ours = [entry for entry in config[loader].dataset.pipeline if not entry.type.startswith("Read")]
        assert [plain(entry) for entry in ours] == [plain(entry) for entry in theirs]


@pytest.mark.parametrize(
    ("decay_norm", "undecayed"),
    [
        # The named trap: the published run decays LayerNorm and BatchNorm.
        (True, lambda name: name in ("backbone.network.pos_embed", "backbone.network.cls_token")),
        (False, lambda name: name.endswith(("pos_embed", "cls_token")) or ".norm" in name or ".bn." in name),
    ],
)
def test_decay_on_the_models_own_parameters(ade: Path, vit_small_file: Path, decay_norm: bool, undecayed: Any) -> None:
    config = resolved(ade, backbone=vit_small_file, decay_norm=decay_norm)
    model = build_model(config)
    optimiser = build_optim_wrapper(model, config.optim_wrapper).optimizer
    decays = {id(group["params"][0]): group["weight_decay"] for group in optimiser.param_groups}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if decays[id(trained[name])] == 0} == {name for name in trained if undecayed(name)}
    assert {decays[id(value)] for value in trained.values()} == {0.0, 0.01}
    # Both kinds of norm are there under the names that the second case looks for.
    assert {"backbone.network.blocks.0.norm1.weight", "decode_head.scale_heads.0.0.bn.weight"} <= set(trained)


def test_learning_rate_follows_the_published_formula(ade: Path) -> None:
    """mmcv 1.x: polynomial over all iterations, times a linear warm-up of 1500 from 1e-6."""
    config = resolved(ade)
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


def test_maps_positions_and_head(ade: Path, vit_small_file: Path) -> None:
    """Four stride-16 maps go into the FPN as they are; the head's strides upsample all the same; output at 1/16."""
    config = resolved(ade, backbone=vit_small_file)
    model = build_model(config).eval()
    assert model.backbone.network.pos_embed.shape == (1, 1 + 32 * 32, 384)
    # 14 x 14 positions to 32 x 32, once, bicubically to the exact size: not by DINO's scale factor.
    stored_1ND = read_backbone_file(vit_small_file).state_dict["pos_embed"][:, 1:]
    stored_1Dhw = stored_1ND.reshape(1, 14, 14, 384).permute(0, 3, 1, 2)
    wanted_1Dhw = nn.functional.interpolate(stored_1Dhw, size=(32, 32), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.backbone.network.pos_embed[:, 1:], wanted_1Dhw.flatten(2).transpose(1, 2))
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 70)
        maps = model.backbone(images)
        assert [tuple(found.shape) for found in maps] == [(1, 384, 4, 5)] * 4
        levels = model.neck(maps)
        assert [tuple(found.shape) for found in levels] == [(1, 256, 4, 5)] * 4
        branches = [head(level) for head, level in zip(model.decode_head.scale_heads, levels, strict=True)]
        assert [tuple(found.shape[-2:]) for found in branches] == [(4, 5), (8, 10), (16, 20), (32, 40)]
        assert model.decode_head(levels).shape == (1, 150, 4, 5)


def test_total_batch_is_kept_on_any_number_of_devices() -> None:
    def plan(world_size: int, **more: Any) -> BatchPlan:
        given = SegmentationConfig(backbone=Path("b"), data=Path("d"), output=Path("o"), **more)
        return given.plan_batch(published_batch(base_config(VIT_SMALL, "fpn")), world_size)

    for world_size in (1, 2, 4, 8, 16):
        assert (plan(world_size).total, plan(world_size).accumulation) == (16, 1)
    assert (plan(1, device_batch_size=4).accumulation, plan(2, device_batch_size=4).accumulation) == (4, 2)
    with pytest.raises(ValueError, match="cannot be split"):
        plan(3)


def test_a_loader_delivers_the_batch_of_its_process(ade: Path) -> None:
    config = resolved(ade, world_size=2, device_batch_size=4)
    assert config.train_dataloader.batch_size == 8
    assert config.optim_wrapper.accumulative_counts == 2


def test_options_reach_the_config(ade: Path) -> None:
    config = resolved(
        ade, iterations=30, crop=100, train_short_side=64, test_short_side=48, max_train_images=2, num_heads=12, workers=0
    )
    assert config.train_cfg.max_iters == 30
    assert [entry.end for entry in config.param_scheduler] == [4, 31]  # a tenth of the iterations warms up
    assert plain(config.model.data_preprocessor.size) == [100, 100]
    assert config.model.backbone.position_image_size == 112  # whole patches
    assert config.model.backbone.num_heads == 12
    assert config.train_dataloader.dataset.pipeline[2].scale == (256, 64)
    assert config.test_dataloader.dataset.pipeline[1].scale == (192, 48)
    assert config.train_dataloader.dataset.indices == 2
    assert config.test_dataloader.dataset.indices == 3
    assert config.train_dataloader.num_workers == 0
    assert len(resolved(ade, iterations=5).param_scheduler) == 1  # too short for a warm-up


def test_a_head_without_config_for_the_family_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no segmentation config for a resnet backbone with the head upernet; there is one for: vit$"
    ):
        base_config(ResNetSpec(layers=(3, 4, 6, 3)), "upernet")


def test_the_learning_rate_follows_another_batch_only_when_told(ade: Path) -> None:
    published = resolved(ade).optim_wrapper.optimizer.lr
    assert resolved(ade, batch_size=8, device_batch_size=8).optim_wrapper.optimizer.lr == published
    assert resolved(ade, batch_size=8, device_batch_size=8, scale_lr=True).optim_wrapper.optimizer.lr == pytest.approx(
        published / 2
    )
