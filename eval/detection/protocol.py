"""From the task's options to the config that mmdet's Runner executes, and what the result says of it: constants and deviations."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from backbones.base import tap_shape
from backbones.spec import BackboneSpec, ForeignSpec, ViTSpec
from eval.detection.config import PUBLISHED_SHORT_SIDE, DetectionConfig
from eval.detection.data import Split
from eval.openmmlab import config as shared
from eval.openmmlab.backbone import PLAIN_STRIDES, PYRAMID_STRIDES, plain_stride
from eval.openmmlab.options import BatchPlan
from eval.result import Protocol

VERSION = 2  # grows whenever a change can change a metric

_RELEASED_HEADS = {384: 8}
"""Heads in the released configuration by the width of the ViT: SP-det's num_heads=8 for ViT-S, left over from XCiT-S12."""

MATCHES_FILE = "image_matches.npz"  # what the test found in every single image, in the output folder


def base_config(spec: BackboneSpec) -> Config:
    """The config file for a family of backbones, as written; ValueError if there is none."""
    return shared.read_family_config(Path(__file__).parent / "configs", spec)


def resolve(
    options: DetectionConfig, spec: BackboneSpec, splits: Mapping[str, Split], device: torch.device, world_size: int
) -> tuple[Config, Protocol]:
    """Fill in everything that depends on the options, the backbone, the data and the devices; and the protocol of such a run.

    Two settings are no deviations: half precision follows the device, and the number of iterations the number of images where the
    schedule is in epochs. Heads of the backbone file that are not the released configuration's are one; the tables show them as a
    footnote (`eval.registry.Benchmark.footnotes`).
    """
    config, train, test = base_config(spec), splits["train2017"], splits["val2017"]
    batch = options.plan_batch(BatchPlan(**config.batch), world_size, has_batch_norm(config, spec))
    _resolve_model(config, options, spec)
    _resolve_schedule(config, options, batch, len(train.trainable[: train.limit]))
    # mmdet takes the first N after leaving out images without annotations.
    shared.use_data(config, options, batch, train.limit, test.limit)
    _scale(config, options.short_side)
    config.test_evaluator.ann_file = str(test.annotation_file.resolve())
    config.test_evaluator.items_file = str(options.output / MATCHES_FILE)
    shared.finish_config(config, options, batch, device)
    base = base_config(spec)
    if isinstance(spec, ViTSpec):
        base.model.backbone.num_heads = _RELEASED_HEADS.get(spec.embed_dim)
    not_compared = ["precision"] if base.half_precision else []
    if base.schedule.unit != "iterations":
        not_compared.append("iterations")
    settings_of = partial(protocol_settings, spec)
    return config, shared.describe_protocol(
        "coco", VERSION, spec, settings_of, base, config, device, options.override, not_compared
    )


def has_batch_norm(config: Config, spec: BackboneSpec) -> bool:
    """Whether anything in the network normalises over the images of a batch."""
    if plain_stride(spec) not in (None, PLAIN_STRIDES[0]):  # whose pyramid has none
        return True

    def contains(part: Any) -> bool:
        if isinstance(part, dict):
            return "BN" in str((part.get("norm_cfg") or {}).get("type")) or any(map(contains, part.values()))
        return isinstance(part, list | tuple) and any(map(contains, part))

    return bool(config.model.backbone.get("sync_batch_norm")) or contains(config.model.to_dict())


def _resolve_model(config: Config, options: DetectionConfig, spec: BackboneSpec) -> None:
    config.model.neck.in_channels = shared.use_backbone(config, options, spec)
    strides = [tap_shape(spec, tap)[1] for tap in config.model.backbone.taps]
    if plain_stride(spec) is None and not isinstance(spec, ForeignSpec) and tuple(strides) != PYRAMID_STRIDES:
        raise ValueError(f"the maps of this {spec.family} have strides {strides}; Mask R-CNN takes {list(PYRAMID_STRIDES)}")


def _resolve_schedule(config: Config, options: DetectionConfig, batch: BatchPlan, num_images: int) -> None:
    schedule = config.schedule
    per_epoch = math.ceil(num_images / batch.total)
    epochs = options.epochs or (schedule.length if schedule.unit == "epochs" else None)
    iterations = options.iterations or (max(1, round(epochs * per_epoch)) if epochs else schedule.length)
    schedule.length = iterations / per_epoch if schedule.unit == "epochs" else iterations
    schedule.precise_batch_norm = min(schedule.precise_batch_norm, math.ceil(iterations / shared.LARGEST_PART))
    if schedule.precise_batch_norm:
        config.custom_hooks = [{"type": "PreciseBatchNormHook", "iterations": schedule.precise_batch_norm}]
    # The decay keeps its place in a schedule of another length.
    milestones = [round(iterations * part) for part in schedule.decay_after]
    decay = {"type": "MultiStepLR", "milestones": milestones, "gamma": schedule.decay_factor}
    shared.use_schedule(config, options, iterations, decay)


def _scale(config: Config, short_side: int) -> None:
    """Bring every size of both pipelines from the published short side to another."""
    if short_side == PUBLISHED_SHORT_SIDE:
        return

    def scaled(sides: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(side * short_side / PUBLISHED_SHORT_SIDE)) for side in sides)

    # The two policies share one transform object in the file, but not after mmengine has read it.
    for loader in (config.train_dataloader, config.test_dataloader):
        for option in ("scale", "crop_size"):
            for entry in shared.transforms(loader, option):
                entry[option] = scaled(entry[option])
        for entry in shared.transforms(loader, "scales"):
            entry.scales = [scaled(scale) for scale in entry.scales]


def protocol_settings(spec: BackboneSpec, config: Config, device: torch.device) -> dict[str, Any]:
    """Every constant that can change a metric."""
    schedule, model, roi_head = config.schedule, config.model, config.model.roi_head
    train, test = config.train_dataloader, config.test_dataloader
    # Either one multi-scale resizing, or one of two policies: the same, or another before a crop and the same after it.
    multi_scale, before_crop, *_ = [*(entry.scales for entry in shared.transforms(train, "scales")), None]
    return {
        "iterations": config.train_cfg.max_iters,
        schedule.unit: schedule.length,
        "decay_after": schedule.decay_after,
        "decay_factor": schedule.decay_factor,
        "warmup_iterations": schedule.warmup_iterations,
        "warmup_factor": schedule.warmup_factor,
        "precise_batch_norm": schedule.precise_batch_norm,
        **shared.optimiser_settings(config),
        **shared.backbone_settings(config, spec),
        **shared.part_settings(neck=model.neck, rpn_head=model.rpn_head),
        **shared.part_settings(box_features=roi_head.bbox_roi_extractor, box_head=roi_head.bbox_head),
        **shared.part_settings(mask_features=roi_head.mask_roi_extractor, mask_head=roi_head.mask_head),
        "rpn_train": model.train_cfg.rpn,
        "rpn_proposals_train": model.train_cfg.rpn_proposal,
        "rcnn_train": model.train_cfg.rcnn,
        "rpn_test": model.test_cfg.rpn,
        "rcnn_test": model.test_cfg.rcnn,
        "train_scales": multi_scale,
        "train_scales_before_crop": before_crop,
        "crop": next((entry.crop_size for entry in shared.transforms(train, "crop_size")), None),
        "flip": shared.transform_option(train, "prob"),
        "resized_by": next((entry.backend for entry in shared.transforms(test, "backend")), "cv2"),
        "masks_as_polygons": any(not entry.poly2mask for entry in shared.transforms(train, "poly2mask")),
        "test_scale": shared.transform_option(test, "scale"),
        "trained_images": train.dataset.filter_cfg,
        "train_transforms": [entry.type for entry in train.dataset.pipeline],
        "test_transforms": [entry.type for entry in test.dataset.pipeline],
        **shared.batch_settings(config, device, has_batch_norm(config, spec)),
        "images_padded_together": config.batch.per_device,
    }
