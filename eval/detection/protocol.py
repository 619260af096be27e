"""What the result says about how its figures were made: the constants as used, and where they differ from the published ones."""

from typing import Any

import torch
from mmengine.config import Config

from backbones.spec import BackboneSpec
from eval.detection.config import DetectionConfig
from eval.detection.experiment import base_config, transforms
from eval.openmmlab.batch import BatchPlan
from eval.openmmlab.config_values import override_deviations, plain
from eval.result import Protocol

NAME = "coco-mask-rcnn-1x"
VERSION = 1

PUBLISHED_BATCH = BatchPlan(total=8, per_device=1, world_size=8)
"""1 image on each of 8 GPUs: the images per GPU are published, the number of GPUs is inferred."""

NOT_COMPARED = {"num_heads", "precision", "iterations"}
"""Settings that are no deviations: heads follow the backbone file (the published config has 8 for a network of 6), precision the
device, and the number of iterations the number of images."""


def describe_protocol(
    config: Config, options: DetectionConfig, spec: BackboneSpec, batch: BatchPlan, device: torch.device
) -> Protocol:
    """The protocol of a run.

    Args:
        config: From `eval.detection.experiment.resolve`.
        options: What the config was resolved from.
        spec: Of the backbone file.
        batch: How the processes make up the batch.
        device: Of this process.
    """
    base = base_config(spec)
    published = protocol_settings(base, spec, PUBLISHED_BATCH, torch.device("cuda"))
    used = protocol_settings(config, spec, batch, device)
    deviations = {
        name: [published[name], used[name]] for name in used if name not in NOT_COMPARED and used[name] != published[name]
    }
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
    optimiser, schedule = config.optim_wrapper.optimizer, config.schedule
    return {
        "epochs": schedule.epochs,
        "iterations": config.train_cfg.max_iters,
        "decay_epochs": schedule.decay_epochs,
        "decay_factor": schedule.decay_factor,
        "warmup_iterations": schedule.warmup_iterations,
        "warmup_factor": schedule.warmup_factor,
        "optimiser": optimiser.type,
        "learning_rate": optimiser.lr,
        "betas": optimiser.betas,
        "weight_decay": optimiser.weight_decay,
        "undecayed": sorted(config.optim_wrapper.paramwise_cfg.custom_keys),
        "gradient_clipping": config.optim_wrapper.clip_grad,
        "precision": config.optim_wrapper.get("dtype", "float32"),
    }


def _model(config: Config, spec: BackboneSpec) -> dict[str, Any]:
    backbone, model = config.model.backbone, config.model
    return {
        "taps": backbone.taps,
        "num_heads": backbone.num_heads or getattr(spec, "num_heads", None),
        "drop_path_rate": backbone.drop_path_rate,
        "position_resize": backbone.get("position_resize"),
        "deconv_pyramid": backbone.get("deconv_pyramid", False),
        "neck": model.neck.type,
        "anchor_scales": model.rpn_head.anchor_generator.scales,
        "anchor_strides": model.rpn_head.anchor_generator.strides,
        "roi_align_strides": model.roi_head.bbox_roi_extractor.featmap_strides,
        "box_head": model.roi_head.bbox_head.type,
        "mask_head": model.roi_head.mask_head.type,
        "rpn_train": model.train_cfg.rpn,
        "rpn_proposals_train": model.train_cfg.rpn_proposal,
        "rcnn_train": model.train_cfg.rcnn,
        "rpn_test": model.test_cfg.rpn,
        "rcnn_test": model.test_cfg.rcnn,
    }


def _data(config: Config) -> dict[str, Any]:
    train, test = config.train_dataloader.dataset, config.test_dataloader.dataset
    first, before_crop, _ = (entry.scales for entry in transforms(train.pipeline) if entry.type == "RandomChoiceResize")
    (crop,) = (entry.crop_size for entry in transforms(train.pipeline) if entry.type == "RandomCrop")
    (flip,) = (entry.prob for entry in transforms(train.pipeline) if entry.type == "RandomFlip")
    (test_scale,) = (entry.scale for entry in transforms(test.pipeline) if entry.type == "Resize")
    return {
        "train_scales": first,
        "train_scales_before_crop": before_crop,
        "crop": crop,
        "flip": flip,
        "test_scale": test_scale,
        "train_transforms": [entry.type for entry in train.pipeline],
        "test_transforms": [entry.type for entry in test.pipeline],
    }
