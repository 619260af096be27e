"""From the task's options to the config that mmseg's Runner executes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, ViTSpec
from eval.openmmlab.batch import BatchPlan
from eval.openmmlab.config_files import read_family_config
from eval.openmmlab.config_values import apply_override
from eval.openmmlab.launch import Precision, optimiser_wrapper
from eval.openmmlab.taps import choose_taps
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import Split

COUNTS_FILE = "class_pixels.json"
"""What the test counted, in the output folder."""

CONFIGS = Path(__file__).parent / "configs"

# Long over short side of the published resizing, (2048, 512).
_LONGEST_ASPECT = 4


def base_config(spec: BackboneSpec) -> Config:
    """The config file for a family of backbones, as written.

    Raises:
        ValueError: If there is none.
    """
    return read_family_config(CONFIGS, spec)


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
        ValueError: If an option does not fit the backbone, or an override names nothing.
    """
    config = base_config(spec)
    _resolve_model(config, options, spec)
    _resolve_schedule(config, options)
    _resolve_data(config, options, splits, batch)
    config.test_evaluator.output_file = str(options.output / COUNTS_FILE)
    config.optim_wrapper = optimiser_wrapper(config.optim_wrapper, precision, batch.accumulation)
    for override in options.override:
        apply_override(config, override)
    return config


def _resolve_model(config: Config, options: SegmentationConfig, spec: BackboneSpec) -> None:
    backbone = config.model.backbone
    backbone.backbone_file = str(options.backbone.resolve())
    backbone.num_heads = options.num_heads
    backbone.taps = choose_taps(options.taps, backbone.taps, spec)
    config.model.data_preprocessor.size = (options.crop, options.crop)
    if isinstance(spec, ViTSpec):
        # The crop is padded to whole patches, like every image.
        backbone.position_image_size = options.crop + -options.crop % spec.patch_size
    with torch.device("meta"):
        config.model.neck.in_channels = build_backbone(spec).map_channels(backbone.taps)


def _resolve_schedule(config: Config, options: SegmentationConfig) -> None:
    rise, decay = config.param_scheduler
    warmup = options.warmup(config.warmup_iterations, options.iterations)
    # See the config file for the + 1.
    rise.end, decay.end = warmup + 1, options.iterations + 1
    config.param_scheduler = [rise, decay] if warmup else [decay]
    config.train_cfg.max_iters = options.iterations
    if not options.decay_norm:
        config.optim_wrapper.paramwise_cfg.norm_decay_mult = 0.0


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
