"""The resolved config and what a result records of it: rows of the COCO table, options, deviations, weight decay.

`tests/eval/test_protocol_tables.py` holds the published constants against docs/protocols.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from PIL import Image

from backbones.spec import BackboneSpec, SwinSpec
from eval.detection.config import DetectionConfig
from eval.detection.data import Split, check_data
from eval.detection.protocol import resolve
from eval.openmmlab.config import plain, transforms
from eval.result import Protocol
from tests.eval.rows import ROWS, THIN_MASK_RCNN, VIT_SMALL, check_decay, full_coco, toy
from tests.toy import write_toy_backbone

GPU = torch.device("cuda")
UPDATES_PER_EPOCH = 14_659  # 117,266 images in batches of 8
PATHS: dict[str, Any] = {"backbone": Path("b"), "data": Path("d"), "output": Path("o")}


def resolved(
    spec: BackboneSpec = VIT_SMALL,
    splits: dict[str, Split] | None = None,
    world_size: int = 8,
    device: torch.device = GPU,
    **options: Any,
) -> tuple[Config, Protocol]:
    """The config as published, on 8 GPUs unless told otherwise."""
    given = DetectionConfig(**{**PATHS, "precision": "float32", **options})
    return resolve(given, spec, splits or full_coco(), device, world_size)


HEADS = {"num_heads": [8, 6]}
"""The deviation of a ViT-S with its own heads from the released configuration."""


@pytest.mark.parametrize(
    ("name", "together", "heads", "channels"),
    [
        ("ViT-Ti/16", 1, 3, [192] * 4),
        ("ViT-S/16", 1, 6, [384] * 4),
        ("ViT-S/8", 1, 6, [384] * 4),
        ("DINOv3 ViT-S/16", 1, 6, [384] * 4),
        ("Swin-T", 2, [3, 6, 12, 24], [96, 192, 384, 768]),
        ("ResNet-50", 2, None, [256, 512, 1024, 2048]),
    ],
)
def test_a_row_is_its_published_protocol(
    name: str, together: int, heads: Any, channels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    config, protocol = resolved(ROWS[name], precision="auto")
    assert protocol.deviations == (HEADS if name.startswith("ViT-S") else {})
    found = [protocol.settings.get(name) for name in ("batch_size", "images_padded_together", "num_heads", "precision")]
    assert found == [8 * together, together, heads, "float32" if name == "ResNet-50" else "bfloat16"]
    assert config.train_dataloader.batch_size == together
    assert list(config.model.neck.in_channels) == channels


def test_a_schedule_of_another_length_keeps_its_proportions() -> None:
    config, _ = resolved(iterations=120)
    warmup, decay = config.param_scheduler
    assert (config.train_cfg.max_iters, decay["milestones"], warmup["end"]) == (120, [80, 110], 13)
    assert [entry["type"] for entry in resolved(iterations=5)[0].param_scheduler] == ["MultiStepLR"]
    milestones = [round(2 * UPDATES_PER_EPOCH * part / 12) for part in (8, 11)]
    assert resolved(epochs=2)[0].param_scheduler[1]["milestones"] == milestones
    with pytest.raises(ValueError, match="both state the length"):
        resolved(epochs=2, iterations=5)
    # The ResNet's is in updates.
    config, _ = resolved(ROWS["ResNet-50"])
    assert config.custom_hooks == [{"type": "PreciseBatchNormHook", "iterations": 200}]
    assert resolved(ROWS["ResNet-50"], epochs=12)[1].deviations == {"iterations": [90_000, 12 * 7330]}
    shortened = {"iterations": [90_000, 90], "warmup_iterations": [1000, 9], "precise_batch_norm": [200, 9]}
    assert resolved(ROWS["ResNet-50"], iterations=90)[1].deviations == shortened


def test_a_resnets_images_and_masks_are_made_as_detectron2_makes_them(coco: Path) -> None:
    config, _ = resolved(ROWS["ResNet-50"], check_data(coco), data=coco)
    image = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    with DefaultScope.overwrite_default_scope("mmdet"):
        resized = TRANSFORMS.build(config.test_dataloader.dataset.pipeline[1])({"img": image})["img"]
        sample = DATASETS.build(config.train_dataloader.dataset)[0]
    antialiased = Image.fromarray(image).resize((1200, 800), Image.Resampling.BILINEAR)
    assert (resized == np.asarray(antialiased)).all()
    assert isinstance(sample["data_samples"].gt_instances.masks, PolygonMasks)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (VIT_SMALL, {"num_heads": 5}, "num_heads=5 does not divide embed_dim=384"),
        (ROWS["Swin-T"], {"num_heads": 4}, "num_heads=4 can be chosen for a ViT only; this backbone is a swin"),
        (SwinSpec(**{**vars(ROWS["Swin-T"]), "patch_size": 2}), {}, r"\[2, 4, 8, 16\]; Mask R-CNN takes \[4, 8, 16, 32\]"),
        (VIT_SMALL, {"taps": [3, 5, 7, 12]}, "--taps"),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused(spec: BackboneSpec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(spec, **options)


@pytest.mark.parametrize(
    ("world_size", "device_batch_size", "loader", "accumulation", "deviations"),
    [
        (1, 8, 8, 1, {"images_padded_together": [1, 8]}),
        (1, 1, 8, 8, {"batch_norm_images": [8, 1]}),
        (8, 8, 1, 1, {}),
        (2, 2, 4, 2, {"batch_norm_images": [8, 4], "images_padded_together": [1, 2]}),
    ],
)
def test_the_batch_is_8_however_it_is_split(
    world_size: int, device_batch_size: int, loader: int, accumulation: int, deviations: dict[str, Any]
) -> None:
    """One device with the whole batch sees as many images in its batch norm as eight with SyncBN, but pads them to one size."""
    config, protocol = resolved(world_size=world_size, device_batch_size=device_batch_size)
    assert config.train_dataloader.batch_size == loader
    assert config.optim_wrapper.accumulative_counts == accumulation
    assert config.train_cfg.max_iters == 12 * UPDATES_PER_EPOCH
    assert protocol.deviations == HEADS | deviations
    assert resolved(device=torch.device("cpu"))[1].deviations == HEADS | {"batch_norm_images": [8, 1]}


@pytest.mark.parametrize(("name", "heads"), [("ViT-S/8", HEADS), ("Swin-T", {})])
def test_without_batch_norm_any_number_of_devices_repeats_the_protocol(name: str, heads: dict[str, Any]) -> None:
    """Of such networks, small parts were called a deviation, and images padded to one size were not."""
    for world_size in (1, 2, 8):
        protocol = resolved(ROWS[name], world_size=world_size)[1]
        assert protocol.deviations == heads
        assert "batch_norm_images" not in protocol.settings
    assert set(resolved(ROWS[name], world_size=1, device_batch_size=4)[1].deviations) == {*heads, "images_padded_together"}


def test_short_side_scales_every_size() -> None:
    train = resolved(short_side=200)[0].train_dataloader
    multi_scale = [plain(entry.scales) for entry in transforms(train, "scales")]
    assert multi_scale[0][0] == multi_scale[2][0] == [333, 120]
    assert multi_scale[0][-1] == multi_scale[2][-1] == [333, 200]
    assert multi_scale[1] == [[333, 100], [333, 125], [333, 150]]
    assert [plain(entry.crop_size) for entry in transforms(train, "crop_size")] == [[96, 150]]


def test_limits_and_learning_rate(coco: Path) -> None:
    config, _ = resolved(splits=check_data(coco, 2, 1), max_train_images=2, max_val_images=1)
    assert (config.train_dataloader.dataset.indices, config.test_dataloader.dataset.indices) == (2, 1)
    assert config.train_cfg.max_iters == 12
    # The rate follows another batch only when told.
    rates = [resolved(**options)[0].optim_wrapper.optimizer.lr for options in ({}, {"batch_size": 16})]
    scaled = resolved(batch_size=16, scale_lr=True)[0].optim_wrapper.optimizer.lr
    assert rates == [5e-5, 5e-5]
    assert scaled == pytest.approx(1e-4)


def test_every_change_is_a_deviation() -> None:
    # The released configuration has 8 heads; those of the backbone file deviate from it.
    for heads, deviation in ((8, None), (None, [8, 6]), (12, [8, 12])):
        assert resolved(num_heads=heads)[1].deviations.get("num_heads") == deviation
    assert "class_token" not in resolved()[1].deviations
    overrides = ["model.test_cfg.rcnn.score_thr=0.01", "model.neck.in_channels.0=5", "optim_wrapper.optimizer.lr=1e-4"]
    changes: dict[str, Any] = {"warmup_iterations": 0, "epochs": 1, "batch_size": 16, "taps": [2, 5, 8, 11], "short_side": 400}
    config, protocol = resolved(**changes, override=overrides)
    assert config.model.neck.in_channels[0] == 5
    wanted = {
        "epochs": [12, 1],
        "warmup_iterations": [1000, 0],
        "batch_size": [8, 16],
        "taps": [[3, 5, 7, 11], [2, 5, 8, 11]],
        "test_scale": [[1333, 800], [666, 400]],
        "model.test_cfg.rcnn.score_thr": [0.05, 0.01],
    }
    assert {name: protocol.deviations[name] for name in wanted} == wanted
    further = {"train_scales", "train_scales_before_crop", "crop", "batch_norm_images", "rcnn_test", "learning_rate"}
    assert further <= set(protocol.deviations)


@pytest.mark.parametrize(
    ("name", "undecayed"),
    [
        # The pyramid's batch norm is decayed as published: `norm` is no part of its name there (fpn1.1).
        ("ViT-S/16", ("LayerNorm",)),
        ("Swin-T", ("LayerNorm", "LayerNorm2d")),
        ("ResNet-50", ("_BatchNormXd",)),
    ],
)
def test_what_is_not_decayed(name: str, undecayed: tuple[str, ...], tmp_path: Path) -> None:
    spec = toy(ROWS[name])
    config, _ = resolved(spec, backbone=write_toy_backbone(tmp_path, spec), override=THIN_MASK_RCNN)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = revert_sync_batchnorm(MODELS.build(config.model))
    check_decay(model, config.optim_wrapper, undecayed)
    if name == "ViT-S/16":
        assert isinstance(model.backbone.pyramid.branches[0][1], torch.nn.modules.batchnorm._BatchNorm)
