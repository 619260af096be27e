"""From the task's options to the config that mmdet's Runner executes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, PlainViTSpec
from eval.detection.config import PUBLISHED_SHORT_SIDE, DetectionConfig
from eval.detection.data import Split
from eval.openmmlab.backbone import with_heads
from eval.openmmlab.batch import BatchPlan, published_batch
from eval.openmmlab.config_files import read_family_config
from eval.openmmlab.config_values import apply_override, check_override
from eval.openmmlab.launch import Precision, optimiser_wrapper, resolve_precision
from eval.openmmlab.pyramid import PATCH_OF_BATCH_NORM, STRIDES, DeconvPyramid
from eval.openmmlab.taps import choose_taps

MATCHES_FILE = "image_matches.npz"
"""What the test found in every single image, in the output folder."""

CONFIGS = Path(__file__).parent / "configs"

# Measuring batch norm's statistics is at most such a part of a run, as warming up is.
_LARGEST_PART = 10


def base_config(spec: BackboneSpec) -> Config:
    """The config file for a family of backbones, as written.

    Raises:
        ValueError: If there is none.
    """
    return read_family_config(CONFIGS, spec)


def training_precision(options: DetectionConfig, spec: BackboneSpec, device: torch.device) -> Precision:
    """The precision of training: the user's, or half precision where that is published and the device has it.

    Raises:
        ValueError: If a half precision is asked for on the CPU.
    """
    choice = options.precision
    if choice == "auto" and not base_config(spec).half_precision:
        choice = "float32"
    return resolve_precision(choice, device)


def resolve(
    options: DetectionConfig, spec: BackboneSpec, splits: Mapping[str, Split], batch: BatchPlan, precision: Precision
) -> Config:
    """Fill in everything that depends on the options, the backbone, the data and the devices.

    Args:
        options: The task's options.
        spec: Of the backbone file.
        splits: From `eval.detection.data.check_data`.
        batch: From `options.plan_batch`.
        precision: From `training_precision`.

    Raises:
        ValueError: If an option does not fit the backbone, or an override names nothing or would change nothing.
    """
    config = base_config(spec)
    _resolve_model(config, options, spec)
    _resolve_schedule(config, options, batch, splits["train2017"].num_training_images)
    _resolve_data(config, options, splits, batch)
    if options.scale_lr:
        config.optim_wrapper.optimizer.lr *= batch.total / published_batch(config).total
    config.optim_wrapper = optimiser_wrapper(config.optim_wrapper, precision, batch.accumulation)
    for override in options.override:
        check_override(override)
        apply_override(config, override)
    return config


def has_batch_norm(config: Config, spec: BackboneSpec) -> bool:
    """Whether anything in the network normalises over the images of a batch."""
    if isinstance(spec, PlainViTSpec) and spec.patch_size == PATCH_OF_BATCH_NORM:
        return True

    def contains(part: Any) -> bool:
        if isinstance(part, dict):
            return "BN" in str((part.get("norm_cfg") or {}).get("type")) or any(map(contains, part.values()))
        return isinstance(part, list | tuple) and any(map(contains, part))

    return bool(config.model.backbone.get("sync_batch_norm")) or contains(config.model.to_dict())


def transforms(pipeline: Sequence[Any]) -> list[Any]:
    """Every transform of a pipeline, those inside a RandomChoice included; may be changed in place."""
    found = []
    for entry in pipeline:
        found.append(entry)
        if entry.type == "RandomChoice":
            found.extend(inner for policy in entry.transforms for inner in policy)
    return found


def _resolve_model(config: Config, options: DetectionConfig, spec: BackboneSpec) -> None:
    backbone = config.model.backbone
    backbone.backbone_file = str(options.backbone.resolve())
    backbone.num_heads = options.num_heads
    backbone.compile = options.compile
    backbone.taps = choose_taps(options.taps, backbone.taps, spec)
    with torch.device("meta"):
        network = build_backbone(with_heads(spec, options.num_heads))
        if isinstance(spec, PlainViTSpec):
            DeconvPyramid(spec.embed_dim, spec.patch_size)  # refuses other patch sizes before anything heavy starts
    config.model.neck.in_channels = network.map_channels(backbone.taps)
    strides = network.map_strides(backbone.taps)
    if not isinstance(spec, PlainViTSpec) and tuple(strides) != STRIDES:
        raise ValueError(f"the maps of this {spec.family} have strides {strides}; Mask R-CNN takes {list(STRIDES)}")


def _resolve_schedule(config: Config, options: DetectionConfig, batch: BatchPlan, num_images: int) -> None:
    schedule = config.schedule
    per_epoch = math.ceil(num_images / batch.total)
    epochs = options.epochs or (schedule.length if schedule.unit == "epochs" else None)
    iterations = options.iterations or (max(1, round(epochs * per_epoch)) if epochs else schedule.length)
    # The decay keeps its place in a schedule of another length.
    milestones = [round(iterations * part) for part in schedule.decay_after]
    warmup = options.warmup(schedule.warmup_iterations, iterations)
    schedule.update(
        length=iterations / per_epoch if schedule.unit == "epochs" else iterations,
        warmup_iterations=warmup,
        precise_batch_norm=min(schedule.precise_batch_norm, math.ceil(iterations / _LARGEST_PART)),
    )
    if schedule.precise_batch_norm:
        config.custom_hooks = [{"type": "PreciseBatchNormHook", "iterations": schedule.precise_batch_norm}]
    config.train_cfg.max_iters = iterations
    config.param_scheduler = [
        {"type": "MultiStepLR", "by_epoch": False, "milestones": milestones, "gamma": schedule.decay_factor},
    ]
    if warmup:
        # The last value is reached one iteration before `end`.
        rise = {"type": "LinearLR", "by_epoch": False, "start_factor": schedule.warmup_factor, "begin": 0, "end": warmup + 1}
        config.param_scheduler.insert(0, rise)


def _resolve_data(config: Config, options: DetectionConfig, splits: Mapping[str, Split], batch: BatchPlan) -> None:
    for loader, split in ((config.train_dataloader, splits["train2017"]), (config.test_dataloader, splits["val2017"])):
        loader.num_workers = options.workers
        loader.dataset.data_root = str(split.root.resolve())
        # mmdet takes the first so many after leaving out images without annotations.
        loader.dataset.indices = split.limit
        _scale(loader.dataset.pipeline, options.short_side)
    config.train_dataloader.batch_size = batch.total // batch.world_size
    config.test_evaluator.ann_file = str(splits["val2017"].annotation_file.resolve())
    config.test_evaluator.items_file = str(options.output / MATCHES_FILE)


def _scale(pipeline: Sequence[Any], short_side: int) -> None:
    """Bring every size of a pipeline from the published short side to another."""
    if short_side == PUBLISHED_SHORT_SIDE:
        return

    def scaled(sides: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(side * short_side / PUBLISHED_SHORT_SIDE)) for side in sides)

    # The two policies share one transform object in the file, but not after mmengine has read it.
    for entry in transforms(pipeline):
        if entry.type == "Resize":
            entry.scale = scaled(entry.scale)
        elif entry.type == "RandomChoiceResize":
            entry.scales = [scaled(scale) for scale in entry.scales]
        elif entry.type == "RandomCrop":
            entry.crop_size = scaled(entry.crop_size)
