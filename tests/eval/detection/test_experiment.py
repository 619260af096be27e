"""The resolved config against method and published constants."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from backbones.spec import BackboneSpec, ViTSpec
from eval.detection.config import DetectionConfig
from eval.detection.data import Split, check_data
from eval.detection.experiment import base_config, resolve, transforms
from eval.openmmlab.batch import published_batch
from eval.openmmlab.config_values import lookup, plain
from tests.eval.coco_splits import full_coco

VIT_SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=False, final_norm=False)

# What the published run states (alinlab/SelfPatch 81aef149, detection/configs), by path in the resolved config.
PUBLISHED: dict[str, Any] = {
    "model.data_preprocessor.mean": [123.675, 116.28, 103.53],
    "model.data_preprocessor.std": [58.395, 57.12, 57.375],
    "model.data_preprocessor.bgr_to_rgb": True,
    "model.data_preprocessor.pad_size_divisor": 32,
    "model.backbone.type": "BackboneFromFile",
    "model.backbone.taps": [3, 5, 7, 11],
    "model.backbone.drop_path_rate": 0.05,
    "model.backbone.num_heads": None,
    "model.backbone.position_resize": "dino",
    "model.backbone.deconv_pyramid": True,
    "model.neck.type": "FPN",
    "model.neck.in_channels": [384, 384, 384, 384],
    "model.neck.out_channels": 256,
    "model.neck.num_outs": 5,
    "model.rpn_head.anchor_generator.scales": [8],
    "model.rpn_head.anchor_generator.ratios": [0.5, 1.0, 2.0],
    "model.rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "model.rpn_head.loss_bbox.type": "L1Loss",
    "model.roi_head.bbox_roi_extractor.roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
    "model.roi_head.mask_roi_extractor.roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
    "model.roi_head.bbox_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "model.roi_head.mask_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "model.roi_head.bbox_head.type": "Shared2FCBBoxHead",
    "model.roi_head.bbox_head.fc_out_channels": 1024,
    "model.roi_head.bbox_head.num_classes": 80,
    "model.roi_head.bbox_head.bbox_coder.target_stds": [0.1, 0.1, 0.2, 0.2],
    "model.roi_head.bbox_head.loss_bbox.type": "L1Loss",
    "model.roi_head.mask_head.type": "FCNMaskHead",
    "model.roi_head.mask_head.num_convs": 4,
    "model.roi_head.mask_head.num_classes": 80,
    "model.train_cfg.rpn.assigner.pos_iou_thr": 0.7,
    "model.train_cfg.rpn.assigner.neg_iou_thr": 0.3,
    "model.train_cfg.rpn.sampler.num": 256,
    "model.train_cfg.rpn.sampler.pos_fraction": 0.5,
    "model.train_cfg.rpn_proposal.nms_pre": 2000,
    "model.train_cfg.rpn_proposal.max_per_img": 1000,
    "model.train_cfg.rpn_proposal.nms": {"type": "nms", "iou_threshold": 0.7},
    "model.train_cfg.rcnn.assigner.pos_iou_thr": 0.5,
    "model.train_cfg.rcnn.sampler.num": 512,
    "model.train_cfg.rcnn.sampler.pos_fraction": 0.25,
    "model.train_cfg.rcnn.sampler.add_gt_as_proposals": True,
    "model.train_cfg.rcnn.mask_size": 28,
    "model.test_cfg.rpn.nms_pre": 1000,
    "model.test_cfg.rpn.max_per_img": 1000,
    "model.test_cfg.rcnn.score_thr": 0.05,
    "model.test_cfg.rcnn.nms": {"type": "nms", "iou_threshold": 0.5},
    "model.test_cfg.rcnn.max_per_img": 100,
    "model.test_cfg.rcnn.mask_thr_binary": 0.5,
    "optim_wrapper.optimizer": {"type": "AdamW", "lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 0.05},
    "optim_wrapper.paramwise_cfg": {
        "custom_keys": {"pos_embed": {"decay_mult": 0.0}, "cls_token": {"decay_mult": 0.0}, "norm": {"decay_mult": 0.0}}
    },
    "optim_wrapper.clip_grad": None,
    "optim_wrapper.accumulative_counts": 1,
    "train_dataloader.batch_size": 8,
    "train_dataloader.dataset.filter_cfg": {"filter_empty_gt": True, "min_size": 32},
}


def resolved(
    spec: BackboneSpec = VIT_SMALL, splits: dict[str, Split] | None = None, world_size: int = 1, **options: Any
) -> Config:
    given = DetectionConfig(backbone=Path("b.safetensors"), data=Path("coco"), output=Path("out"), **options)
    batch = given.plan_batch(published_batch(base_config(spec)), world_size)
    return resolve(given, spec, splits or full_coco(), batch, "float32")


def test_defaults_are_the_published_protocol() -> None:
    config = resolved()
    found = {path: plain(lookup(config, path)) for path in PUBLISHED}
    assert found == PUBLISHED


def test_published_schedule_in_updates() -> None:
    # 117,266 images in batches of 8: 14,659 updates an epoch.
    config = resolved()
    warmup, decay = config.param_scheduler
    assert config.train_cfg.max_iters == 12 * 14_659
    assert decay == {"type": "MultiStepLR", "by_epoch": False, "milestones": [8 * 14_659, 11 * 14_659], "gamma": 0.1}
    assert warmup == {"type": "LinearLR", "by_epoch": False, "start_factor": 0.001, "begin": 0, "end": 1001}


def test_published_augmentation() -> None:
    pipeline = resolved().train_dataloader.dataset.pipeline
    assert [entry.type for entry in pipeline] == [
        *("ReadImage", "LoadAnnotations", "RandomFlip", "RandomChoice", "PackDetInputs"),
    ]
    first, second = pipeline[3].transforms
    sides = [(1333, side) for side in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]
    assert [plain(entry.scales) for entry in first] == [plain(sides)]
    assert plain(second[0].scales) == [[1333, 400], [1333, 500], [1333, 600]]
    assert (second[1].type, second[1].crop_type, plain(second[1].crop_size)) == ("RandomCrop", "absolute_range", [384, 600])
    assert plain(second[2].scales) == plain(sides)
    test = resolved().test_dataloader.dataset.pipeline
    assert [plain(entry.scale) for entry in test if entry.type == "Resize"] == [[1333, 800]]


@pytest.mark.parametrize(
    ("world_size", "device_batch_size", "loader", "accumulation"), [(1, 8, 8, 1), (1, 1, 8, 8), (8, 8, 1, 1), (2, 2, 4, 2)]
)
def test_the_batch_is_8_however_it_is_split(world_size: int, device_batch_size: int, loader: int, accumulation: int) -> None:
    config = resolved(world_size=world_size, device_batch_size=device_batch_size)
    assert config.train_dataloader.batch_size == loader
    assert config.optim_wrapper.accumulative_counts == accumulation
    assert config.train_cfg.max_iters == 12 * 14_659


def test_taps_beyond_the_last_block_are_refused() -> None:
    with pytest.raises(ValueError, match="--taps"):
        resolved(taps=[3, 5, 7, 12])


def test_a_short_schedule_keeps_its_proportions() -> None:
    config = resolved(iterations=120)
    warmup, decay = config.param_scheduler
    assert (config.train_cfg.max_iters, decay["milestones"], warmup["end"]) == (120, [80, 110], 13)
    assert [entry["type"] for entry in resolved(iterations=5).param_scheduler] == ["MultiStepLR"]
    assert resolved(epochs=2).param_scheduler[1]["milestones"] == [round(2 * 14_659 * part / 12) for part in (8, 11)]
    with pytest.raises(ValueError, match="both state the length"):
        resolved(epochs=2, iterations=5)


def test_short_side_scales_every_size() -> None:
    config = resolved(short_side=200)
    found = transforms(config.train_dataloader.dataset.pipeline)
    multi_scale = [plain(entry.scales) for entry in found if entry.type == "RandomChoiceResize"]
    assert multi_scale[0][0] == multi_scale[2][0] == [333, 120]
    assert multi_scale[0][-1] == multi_scale[2][-1] == [333, 200]
    assert multi_scale[1] == [[333, 100], [333, 125], [333, 150]]
    assert [plain(entry.crop_size) for entry in found if entry.type == "RandomCrop"] == [[96, 150]]


def test_overrides_reach_any_value_and_no_new_one() -> None:
    config = resolved(override=["model.test_cfg.rcnn.score_thr=0.01", "model.neck.in_channels.0=5"])
    assert config.model.test_cfg.rcnn.score_thr == 0.01
    assert config.model.neck.in_channels[0] == 5
    for mistake in ("model.test_cfg.rcnn.scor_thr=0.01", "model.test_cfg", "model.neck.x.y=1", "model.neck=[1"):
        with pytest.raises(ValueError, match="wanted key=value"):
            resolved(override=[mistake])


@pytest.mark.parametrize(
    "override",
    [
        *(
            "schedule.warmup_iterations=500",
            "batch.total=8",
            "half_precision=false",
            "load_from=/x.pth",
            "train_cfg.max_iters=3",
        ),
        *("train_dataloader.batch_size=1", "optim_wrapper.accumulative_counts=2", "default_hooks.checkpoint.interval=1"),
    ],
)
def test_overrides_that_would_change_nothing_are_refused(override: str) -> None:
    """The result said that they had been used."""
    with pytest.raises(ValueError, match=r"would change nothing: only values under model\., optim_wrapper\."):
        resolved(override=[override])


def test_limits_reach_mmdet(coco: Path) -> None:
    config = resolved(splits=check_data(coco, 2, 1), max_train_images=2, max_val_images=1)
    assert (config.train_dataloader.dataset.indices, config.test_dataloader.dataset.indices) == (2, 1)
    assert config.train_cfg.max_iters == 12


def test_the_learning_rate_follows_another_batch_only_when_told() -> None:
    published = resolved().optim_wrapper.optimizer.lr
    assert resolved(batch_size=4, device_batch_size=4).optim_wrapper.optimizer.lr == published
    scaled = resolved(batch_size=4, device_batch_size=4, scale_lr=True).optim_wrapper.optimizer.lr
    assert scaled == pytest.approx(published / 2)
