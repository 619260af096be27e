"""What the result says about how its figures were made: the constants as used, and where they differ from the published ones."""

from typing import Any

import torch
from mmengine.config import Config

from backbones.spec import BackboneSpec
from eval.openmmlab.batch import BatchPlan, published_batch
from eval.openmmlab.config_values import override_deviations, plain
from eval.openmmlab.settings import backbone_settings, batch_settings, flat_settings, optimiser_settings
from eval.result import Protocol
from eval.segmentation.config import Head, SegmentationConfig
from eval.segmentation.experiment import base_config, transform

NAMES: dict[Head, str] = {"fpn": "ade20k-semantic-fpn-40k", "upernet": "ade20k-upernet-160k"}
VERSION = 1


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
    base = base_config(spec, options.head)
    published = protocol_settings(base, spec, published_batch(base), torch.device("cuda"))
    used = protocol_settings(config, spec, batch, device)
    deviations = {name: [published.get(name), used[name]] for name in used if used[name] != published.get(name)}
    deviations |= override_deviations(config, base, options.override)
    return Protocol(name=NAMES[options.head], version=VERSION, settings=used, deviations=deviations)


def protocol_settings(config: Config, spec: BackboneSpec, batch: BatchPlan, device: torch.device) -> dict[str, Any]:
    """Every constant that can change a figure, as JSON-ready values."""
    model = config.model
    settings = {
        **config.schedule,
        **optimiser_settings(config),
        **backbone_settings(config, spec),
        **flat_settings("neck", model.neck),
        **flat_settings("head", model.decode_head),
        **flat_settings("auxiliary_head", model.get("auxiliary_head")),
        **_data(config),
        **batch_settings(batch, device),
    }
    return {name: plain(value) for name, value in settings.items()}


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
