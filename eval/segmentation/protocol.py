"""What the result says about how its figures were made: the constants as used, and where they differ from the published ones."""

from typing import Any

import torch
from mmengine.config import Config

from backbones.spec import BackboneSpec
from eval.openmmlab.batch import BatchPlan
from eval.openmmlab.config_values import override_deviations, plain
from eval.result import Protocol
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.experiment import base_config, transform

NAME = "ade20k-semantic-fpn-40k"
VERSION = 1

PUBLISHED_BATCH = BatchPlan(total=16, per_device=4, world_size=4)
"""4 images on each of 4 GPUs: the images per GPU are published, the number of GPUs is inferred."""


def describe_protocol(
    config: Config, options: SegmentationConfig, spec: BackboneSpec, batch: BatchPlan, device: torch.device
) -> Protocol:
    """The protocol of a run.

    Args:
        config: From `eval.segmentation.experiment.resolve`.
        options: What the config was resolved from.
        spec: Of the backbone file.
        batch: How the processes make up the batch.
        device: Of this process.
    """
    base = base_config(spec)
    published = protocol_settings(base, spec, PUBLISHED_BATCH, torch.device("cuda"))
    used = protocol_settings(config, spec, batch, device)
    deviations = {name: [published[name], used[name]] for name in used if used[name] != published[name]}
    deviations |= override_deviations(config, base, options.override)
    return Protocol(name=NAME, version=VERSION, settings=used, deviations=deviations)


def protocol_settings(config: Config, spec: BackboneSpec, batch: BatchPlan, device: torch.device) -> dict[str, Any]:
    """Every constant that can change a figure, as JSON-ready values."""
    settings = {**_training(config), **_model(config, spec), **_data(config)}
    # Statistics are shared between GPUs (SyncBN), not between processes on the CPU.
    sharing = batch.world_size if device.type == "cuda" else 1
    settings |= {"batch_size": batch.total, "batch_norm_images": batch.per_device * sharing}
    return {name: plain(value) for name, value in settings.items()}


def _training(config: Config) -> dict[str, Any]:
    optimiser, parameter_rules = config.optim_wrapper.optimizer, config.optim_wrapper.paramwise_cfg
    schedule = {scheduler.type: scheduler for scheduler in config.param_scheduler}
    warmup, decay = schedule.get("LinearLR"), schedule["PolyLR"]
    return {
        "iterations": config.train_cfg.max_iters,
        "warmup_iterations": warmup.end - 1 if warmup else 0,
        "warmup_ratio": warmup.start_factor if warmup else None,
        "poly_power": decay.power,
        "min_learning_rate": decay.eta_min,
        "optimiser": optimiser.type,
        "learning_rate": optimiser.lr,
        "betas": optimiser.betas,
        "weight_decay": optimiser.weight_decay,
        "undecayed": sorted(parameter_rules.custom_keys),
        "decay_norm": "norm_decay_mult" not in parameter_rules,
        "precision": config.optim_wrapper.get("dtype", "float32"),
    }


def _model(config: Config, spec: BackboneSpec) -> dict[str, Any]:
    backbone, head = config.model.backbone, config.model.decode_head
    return {
        "taps": backbone.taps,
        "num_heads": backbone.num_heads or getattr(spec, "num_heads", None),
        "drop_path_rate": backbone.drop_path_rate,
        "position_resize": backbone.position_resize,
        "position_image_size": backbone.position_image_size,
        "neck": config.model.neck.type,
        "neck_channels": config.model.neck.out_channels,
        "head": head.type,
        "head_channels": head.channels,
        "head_dropout": head.dropout_ratio,
        "head_feature_strides": head.feature_strides,
        "head_norm": head.norm_cfg.type,
        "loss": head.loss_decode.type,
    }


def _data(config: Config) -> dict[str, Any]:
    train, test = config.train_dataloader, config.test_dataloader
    return {
        "train_scale": transform(train, "RandomResize").scale,
        "train_scale_range": transform(train, "RandomResize").ratio_range,
        "crop": transform(train, "RandomCrop").crop_size,
        "crop_max_class_share": transform(train, "RandomCrop").cat_max_ratio,
        "flip": transform(train, "RandomFlip").prob,
        "train_transforms": [entry.type for entry in train.dataset.pipeline],
        "test_scale": transform(test, "Resize").scale,
        "test_mode": config.model.test_cfg.mode,
        "test_transforms": [entry.type for entry in test.dataset.pipeline],
    }
