"""What the result says about how its figures were made: the constants as used, and where they differ from the published ones."""

from typing import Any

import torch
from mmengine.config import Config

from backbones.spec import BackboneSpec
from eval.detection.config import DetectionConfig
from eval.detection.experiment import base_config, has_batch_norm, transforms
from eval.openmmlab.batch import BatchPlan, published_batch
from eval.openmmlab.config_values import override_deviations, plain
from eval.openmmlab.settings import backbone_settings, batch_settings, flat_settings, optimiser_settings
from eval.result import Protocol

NAME = "coco-mask-rcnn-1x"
VERSION = 1


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
    published = protocol_settings(base, spec, published_batch(base), torch.device("cuda"))
    used = protocol_settings(config, spec, batch, device)
    deviations = {
        name: [published.get(name), used[name]]
        for name in used
        if name not in _not_compared(base) and used[name] != published.get(name)
    }
    deviations |= override_deviations(config, base, options.override)
    return Protocol(name=NAME, version=VERSION, settings=used, deviations=deviations)


def protocol_settings(config: Config, spec: BackboneSpec, batch: BatchPlan, device: torch.device) -> dict[str, Any]:
    """Every constant that can change a figure, as JSON-ready values."""
    settings = {
        **_schedule(config),
        **optimiser_settings(config),
        **backbone_settings(config, spec),
        **_heads(config),
        **_data(config),
        **batch_settings(batch, device, has_batch_norm(config, spec)),
        "images_padded_together": batch.per_device,
    }
    return {name: plain(value) for name, value in settings.items()}


def _not_compared(base: Config) -> set[str]:
    """Settings that are no deviations.

    Heads follow the backbone file (the published config has 8 for a network of 6), the half precision the device, and the number of
    iterations the number of images where the schedule is in epochs.
    """
    return {"num_heads"} | ({"precision"} if base.half_precision else set()) | ({"iterations"} - {base.schedule.unit})


def _schedule(config: Config) -> dict[str, Any]:
    schedule = config.schedule
    return {
        "iterations": config.train_cfg.max_iters,
        schedule.unit: schedule.length,
        "decay_after": schedule.decay_after,
        "decay_factor": schedule.decay_factor,
        "warmup_iterations": schedule.warmup_iterations,
        "warmup_factor": schedule.warmup_factor,
        "precise_batch_norm": schedule.precise_batch_norm,
    }


def _heads(config: Config) -> dict[str, Any]:
    model, roi_head = config.model, config.model.roi_head
    return {
        **flat_settings("neck", model.neck),
        **flat_settings("rpn_head", model.rpn_head),
        **flat_settings("box_features", roi_head.bbox_roi_extractor),
        **flat_settings("box_head", roi_head.bbox_head),
        **flat_settings("mask_features", roi_head.mask_roi_extractor),
        **flat_settings("mask_head", roi_head.mask_head),
        "rpn_train": model.train_cfg.rpn,
        "rpn_proposals_train": model.train_cfg.rpn_proposal,
        "rcnn_train": model.train_cfg.rcnn,
        "rpn_test": model.test_cfg.rpn,
        "rcnn_test": model.test_cfg.rcnn,
    }


def _data(config: Config) -> dict[str, Any]:
    train, test = config.train_dataloader.dataset, config.test_dataloader.dataset
    # Either one multi-scale resizing, or one of two policies: the same, or another before a crop and the same after it.
    multi_scale, before_crop, *_ = [*_values(train, "RandomChoiceResize", "scales"), None]
    (flip,) = _values(train, "RandomFlip", "prob")
    (test_scale,) = _values(test, "Resize", "scale")
    return {
        "train_scales": multi_scale,
        "train_scales_before_crop": before_crop,
        "crop": next(iter(_values(train, "RandomCrop", "crop_size")), None),
        "flip": flip,
        "test_scale": test_scale,
        "trained_images": train.filter_cfg,
        "train_transforms": [entry.type for entry in train.pipeline],
        "test_transforms": [entry.type for entry in test.pipeline],
    }


def _values(dataset: Any, transform: str, name: str) -> list[Any]:
    """One option of all transforms of a type, in order."""
    return [entry[name] for entry in transforms(dataset.pipeline) if entry.type == transform]
