"""From the task's options to the config that mmseg's Runner executes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, ViTSpec
from eval.openmmlab.backbone import with_heads
from eval.openmmlab.batch import BatchPlan, published_batch
from eval.openmmlab.config_files import read_family_config
from eval.openmmlab.config_values import apply_override, check_override
from eval.openmmlab.launch import Precision, optimiser_wrapper
from eval.openmmlab.taps import choose_taps
from eval.segmentation.config import Head, SegmentationConfig
from eval.segmentation.data import Split

COUNTS_FILE = "class_pixels.json"
"""What the test counted, in the output folder."""
IMAGES_FILE = "image_pixels.npz"
"""The same for every single image."""

CONFIGS = Path(__file__).parent / "configs"

# Long over short side of the published resizing, (2048, 512).
_LONGEST_ASPECT = 4


def base_config(spec: BackboneSpec, head: Head) -> Config:
    """The config file for a family of backbones and a head, as written.

    Raises:
        ValueError: If there is none.
    """
    return read_family_config(CONFIGS, spec, "" if head == "fpn" else head)


def resolve(
    options: SegmentationConfig, spec: BackboneSpec, splits: Mapping[str, Split], batch: BatchPlan, precision: Precision
) -> Config:
    """Fill in everything that depends on the options, the backbone, the data and the devices.

    Args:
        options: The task's options.
        spec: Of the backbone file.
        splits: From `eval.segmentation.data.check_data`.
        batch: From `options.plan_batch`.
        precision: From `eval.openmmlab.launch.resolve_precision`.

    Raises:
        ValueError: If an option does not fit the backbone, or an override names nothing or would change nothing.
    """
    config = base_config(spec, options.head)
    _resolve_model(config, options, spec)
    _resolve_schedule(config, options)
    _resolve_data(config, options, splits, batch)
    config.test_evaluator.output_file = str(options.output / COUNTS_FILE)
    config.test_evaluator.items_file = str(options.output / IMAGES_FILE)
    if options.scale_lr:
        config.optim_wrapper.optimizer.lr *= batch.total / published_batch(config).total
    config.optim_wrapper = optimiser_wrapper(config.optim_wrapper, precision, batch.accumulation)
    for override in options.override:
        check_override(override)
        apply_override(config, override)
    return config


def _resolve_model(config: Config, options: SegmentationConfig, spec: BackboneSpec) -> None:
    backbone = config.model.backbone
    backbone.backbone_file = str(options.backbone.resolve())
    backbone.num_heads = options.num_heads
    backbone.compile = options.compile
    backbone.taps = choose_taps(options.taps, backbone.taps, spec)
    config.model.data_preprocessor.size = (options.crop, options.crop)
    if isinstance(spec, ViTSpec):
        # The crop is padded to whole patches, like every image.
        backbone.position_image_size = options.crop + -options.crop % spec.patch_size
    with torch.device("meta"):
        channels = build_backbone(with_heads(spec, options.num_heads)).map_channels(backbone.taps)
    if config.model.neck is not None:
        config.model.neck.in_channels = channels
    else:
        config.model.decode_head.in_channels = channels
        config.model.auxiliary_head.in_channels = channels[config.model.auxiliary_head.in_index]


def _resolve_schedule(config: Config, options: SegmentationConfig) -> None:
    schedule, rules = config.schedule, config.optim_wrapper.paramwise_cfg
    iterations = options.iterations or schedule.iterations
    warmup = options.warmup(schedule.warmup_iterations, iterations)
    schedule.update(iterations=iterations, warmup_iterations=warmup)
    # mmcv 1.x multiplies the polynomial from iteration 0 with the warm-up; mmengine's schedulers do the same when both begin at 0.
    # They reach their last value one iteration before `end`, hence the + 1.
    decay = {"type": "PolyLR", "power": schedule.poly_power, "eta_min": schedule.min_learning_rate, "end": iterations + 1}
    rise = {"type": "LinearLR", "start_factor": schedule.warmup_factor, "end": warmup + 1}
    used = [rise, decay] if warmup else [decay]
    config.param_scheduler = [{**scheduler, "begin": 0, "by_epoch": False} for scheduler in used]
    config.train_cfg.max_iters = iterations
    if options.decay_norm:
        rules.custom_keys.pop("norm", None)
    elif options.decay_norm is not None:
        rules.norm_decay_mult = 0.0


def _resolve_data(config: Config, options: SegmentationConfig, splits: Mapping[str, Split], batch: BatchPlan) -> None:
    for loader, split in ((config.train_dataloader, splits["training"]), (config.test_dataloader, splits["validation"])):
        loader.num_workers = options.workers
        loader.dataset.data_root = str(split.root.resolve())
        loader.dataset.indices = len(split.stems)
    config.train_dataloader.batch_size = batch.total // batch.world_size
    transform(config.train_dataloader, "RandomResize").scale = _scale(options.train_short_side)
    transform(config.train_dataloader, "RandomCrop").crop_size = (options.crop, options.crop)
    transform(config.test_dataloader, "Resize").scale = _scale(options.test_short_side)


def _scale(short_side: int) -> tuple[int, int]:
    return (_LONGEST_ASPECT * short_side, short_side)


def transform(loader: Any, name: str) -> Any:
    """The entry of a data loader's only transform of a type; may be changed in place."""
    (found,) = [entry for entry in loader.dataset.pipeline if entry.type == name]
    return found
