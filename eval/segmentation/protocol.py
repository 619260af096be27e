"""From the task's options to the config that mmseg's Runner executes, and what the result says of it: constants and deviations."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from backbones.spec import BackboneSpec, ViTSpec
from eval.openmmlab import config as shared
from eval.openmmlab.options import BatchPlan
from eval.probes.data import Split
from eval.result import Protocol
from eval.segmentation.config import Head, SegmentationConfig

VERSION = 1

COUNTS_FILE = "class_pixels.json"  # what the test counted, in the output folder
IMAGES_FILE = "image_pixels.npz"  # the same for every single image

_LONGEST_ASPECT = 4  # long over short side of the published resizing, (2048, 512)


def base_config(spec: BackboneSpec, head: Head) -> Config:
    """The config file for a family of backbones and a head, as written; ValueError if there is none."""
    return shared.read_family_config(Path(__file__).parent / "configs", spec, "" if head == "fpn" else head)


def resolve(
    options: SegmentationConfig, spec: BackboneSpec, splits: Mapping[str, Split], device: torch.device, world_size: int
) -> tuple[Config, Protocol]:
    """Fill in everything that depends on the options, the backbone, the data and the devices; and the protocol of such a run."""
    config = base_config(spec, options.head)
    batch = options.plan_batch(BatchPlan(**config.batch), world_size)
    if options.head == "upernet" and batch.per_device == 1 and (world_size == 1 or device.type == "cpu"):
        raise ValueError("head=upernet pools to 1 x 1, so that one image has no batch statistics; give --device-batch-size 2")
    _resolve_model(config, options, spec)
    _resolve_schedule(config, options)
    shared.use_data(config, options, batch, len(splits["training"].pairs), len(splits["validation"].pairs))
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.dataset.type = "ListedADE20K"
    for loader, option, value in (
        (config.train_dataloader, "scale", (_LONGEST_ASPECT * options.train_short_side, options.train_short_side)),
        (config.train_dataloader, "crop_size", (options.crop, options.crop)),
        (config.test_dataloader, "scale", (_LONGEST_ASPECT * options.test_short_side, options.test_short_side)),
    ):
        for entry in shared.transforms(loader, option):
            entry[option] = value
    config.test_evaluator.output_file = str(options.output / COUNTS_FILE)
    config.test_evaluator.items_file = str(options.output / IMAGES_FILE)
    shared.finish_config(config, options, batch, device)
    benchmark = "ade20k" if options.head == "fpn" else options.head
    base, settings_of = base_config(spec, options.head), partial(protocol_settings, spec)
    return config, shared.describe_protocol(benchmark, VERSION, spec, settings_of, base, config, device, options.override)


def _resolve_model(config: Config, options: SegmentationConfig, spec: BackboneSpec) -> None:
    channels = shared.use_backbone(config, options, spec)
    config.model.data_preprocessor.size = (options.crop, options.crop)
    if isinstance(spec, ViTSpec):
        # The crop is padded to whole patches, like every image.
        config.model.backbone.position_image_size = options.crop + -options.crop % spec.patch_size
    if config.model.neck is not None:
        config.model.neck.in_channels = channels
    else:
        config.model.decode_head.in_channels = channels
        config.model.auxiliary_head.in_channels = channels[config.model.auxiliary_head.in_index]


def _resolve_schedule(config: Config, options: SegmentationConfig) -> None:
    schedule, rules = config.schedule, config.optim_wrapper.paramwise_cfg
    schedule.iterations = options.iterations or schedule.iterations
    # mmcv 1.x multiplies the polynomial from iteration 0 with the warm-up; mmengine's schedulers do the same when both begin at 0.
    # They reach their last value one iteration before `end`, hence the + 1.
    power, least = schedule.poly_power, schedule.min_learning_rate
    decay = {"type": "PolyLR", "power": power, "eta_min": least, "begin": 0, "end": schedule.iterations + 1}
    shared.use_schedule(config, options, schedule.iterations, decay)
    if options.decay_norm:
        rules.custom_keys.pop("norm", None)
    elif options.decay_norm is not None:
        rules.norm_decay_mult = 0.0


def protocol_settings(spec: BackboneSpec, config: Config, device: torch.device) -> dict[str, Any]:
    """Every constant that can change a metric."""
    model, train, test = config.model, config.train_dataloader, config.test_dataloader
    return {
        **config.schedule,
        **shared.optimiser_settings(config),
        **shared.backbone_settings(config, spec),
        **shared.part_settings(neck=model.neck, head=model.decode_head, auxiliary_head=model.get("auxiliary_head")),
        "train_scale": shared.transform_option(train, "scale"),
        "train_scale_range": shared.transform_option(train, "ratio_range"),
        "crop": shared.transform_option(train, "crop_size"),
        "crop_max_class_share": shared.transform_option(train, "cat_max_ratio"),
        "flip": shared.transform_option(train, "prob"),
        "train_transforms": [entry.type for entry in train.dataset.pipeline],
        "test_scale": shared.transform_option(test, "scale"),
        "test_mode": model.test_cfg.mode,
        "test_transforms": [entry.type for entry in test.dataset.pipeline],
        **shared.batch_settings(config, device),
    }
