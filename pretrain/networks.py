"""Student and teacher of a run, and how their weights move: AdamW as DINO drives it, the teacher's moving average, schedules."""

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import get_ema_multi_avg_fn

from backbones.spec import BackboneSpec, SwinSpec, ViTSpec
from pretrain.config import PretrainConfig
from pretrain.objectives.base import Objective


@dataclass
class Networks:
    """What is trained, and what trains it."""

    spec: BackboneSpec  # of the backbone of both networks
    student: nn.Module
    teacher: nn.Module  # the student's moving average, without gradients
    objective: Objective  # its buffers are running state
    optimizer: AdamW
    autocast: torch.autocast  # the arithmetic of student and teacher; losses are always float32


def build_networks(config: PretrainConfig, device: torch.device) -> Networks:
    """Student and teacher with the same fresh weights, determined by the seed."""
    torch.manual_seed(config.train.seed)
    module, name = config.traits.objective.split(":")
    objective: Objective = getattr(importlib.import_module(f"pretrain.objectives.{module}"), name)(config).to(device)
    spec = backbone_spec(config)
    student = objective.build_network(spec, config.backbone.drop_path_rate, "student").to(device)
    teacher = objective.build_network(spec, 0.0, "teacher").to(device)
    # Of a student with further parts (MoBY's predictor) the teacher takes its own.
    weights = student.state_dict()
    teacher.load_state_dict({name: weights[name] for name in teacher.state_dict()})
    teacher.requires_grad_(False)
    optimizer = build_optimizer(student, config.optim.decay_positions)
    return Networks(spec, student, teacher, objective, optimizer, choose_autocast(config.train.precision, device))


def backbone_spec(config: PretrainConfig) -> BackboneSpec:
    """The stored positions cover the global crops."""
    backbone, has_cls, side = config.backbone, config.traits.class_token, config.views.global_size
    sizes: dict[str, Any] = {"embed_dim": backbone.embed_dim, "patch_size": backbone.patch_size, "image_size": side}
    if backbone.family == "swin":
        return SwinSpec(depths=backbone.stage_depths, num_heads=backbone.stage_heads, window_size=backbone.window_size, **sizes)
    return ViTSpec(depth=backbone.depth, num_heads=backbone.num_heads, class_token=has_cls, final_norm=has_cls, **sizes)


def choose_autocast(precision: str, device: torch.device) -> torch.autocast:
    """`auto`, `float32` or `bfloat16`; the authors' code has float16 with loss scaling instead."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def build_optimizer(network: nn.Module, decay_positions: bool = True) -> AdamW:
    """AdamW with two groups, `decay` and `no_decay`; their learning rate and weight decay are set before every step.

    Biases and one-dimensional parameters do not decay; without `decay_positions`, neither do positions and CLS tokens.
    """
    exempt = (".bias",) if decay_positions else (".bias", "pos_embed", "cls_token", "relative_position_bias_table")
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1 and not name.endswith(exempt)].append(parameter)
    no_decay: dict[str, Any] = {"params": groups[False], "name": "no_decay", "weight_decay": 0.0}
    return AdamW([{"params": groups[True], "name": "decay"}, no_decay], lr=0.0, fused=True)


@torch.no_grad()
def clip_each_gradient(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale down every parameter's gradient by itself to at most `max_norm` (facebookresearch/dino 7c446df, utils.clip_gradients)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    factors = [(max_norm / (norm + 1e-6)).clamp(max=1.0) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every teacher parameter towards the student's of its name: momentum * teacher + (1 - momentum) * student."""
    moved, towards = dict(teacher.named_parameters()), dict(student.named_parameters())
    get_ema_multi_avg_fn(momentum)(list(moved.values()), [towards[name] for name in moved], 0)


# Schedules: functions of the step or epoch alone, so that a resumed run needs no state.

REFERENCE_BATCH = 256  # `optim.lr` refers to it; the learning rate grows linearly with the batch of all processes together


def cosine(step: int, start: float, end: float, steps: int, warmup_steps: int = 0, warmup_start: float = 0.0) -> float:
    """A linear warm-up from `warmup_start`, then a half cosine from `start` to `end`; facebookresearch/dino 7c446df, utils.py.

    The last step of the warm-up already has the value `start`; the last of all `steps` is one short of `end`.
    """
    if step < warmup_steps:
        return warmup_start + (start - warmup_start) * step / max(warmup_steps - 1, 1)
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def linear(epoch: int, start: float, end: float, epochs: int) -> float:
    """From `start` in the first epoch to `end`, which the last of the `epochs` has already; constant afterwards."""
    return end if epoch >= epochs else start + (end - start) * epoch / max(epochs - 1, 1)


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """The values of all schedules at one step; they mean what the options in `optim` and `dino` do."""

    lr: float
    weight_decay: float
    teacher_momentum: float
    teacher_temperature: float
    clip_grad: float
    clip_each: bool = True
    freeze_last_layer: bool  # in this step


def step_settings(config: PretrainConfig, steps_per_epoch: int, step: int) -> StepSettings:
    """The values of all schedules where `step` steps are done."""
    optim, dino, epoch = config.optim, config.dino, step // steps_per_epoch
    steps = config.train.epochs * steps_per_epoch
    scale = config.train.batch_size / REFERENCE_BATCH
    scale_of_ends = scale if optim.scale_ends else 1
    # Learning rate and weight decay count either in steps or in epochs.
    unit = 1 if optim.update_every == "step" else steps_per_epoch
    place, units, warmup_units = step // unit, steps // unit, optim.warmup_epochs * steps_per_epoch // unit
    ends = optim.lr * scale, optim.min_lr * scale_of_ends
    temperatures = dino.warmup_teacher_temperature, dino.teacher_temperature, dino.warmup_teacher_temperature_epochs
    return StepSettings(
        lr=cosine(place, *ends, units, warmup_units, optim.start_lr * scale_of_ends),
        weight_decay=cosine(place, optim.weight_decay, optim.weight_decay_end, units),
        teacher_momentum=cosine(step, optim.teacher_momentum, 1.0, steps),
        teacher_temperature=linear(epoch, *temperatures),
        clip_grad=optim.clip_grad,
        clip_each=optim.clip_each,
        freeze_last_layer=epoch < optim.freeze_last_layer_epochs,
    )
