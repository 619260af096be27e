"""Student and teacher of a run, and how their weights move: AdamW as DINO drives it, and the teacher's moving average."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import get_ema_multi_avg_fn

from backbones.spec import BackboneSpec, spec_from_dict
from pretrain.config import PretrainConfig
from pretrain.objectives.base import Objective

_POSITIONS = ("pos_embed", "cls_token", "relative_position_bias_table")


@dataclass
class Networks:
    """What is trained, and what trains it."""

    spec: BackboneSpec
    """The backbone of both networks."""
    student: nn.Module
    """Trained by the optimiser; not wrapped."""
    teacher: nn.Module
    """The student's moving average, without gradients."""
    objective: Objective
    """The loss; its buffers are running state."""
    optimizer: AdamW


def build_networks(config: PretrainConfig, device: torch.device) -> Networks:
    """Student and teacher with the same fresh weights, determined by the seed."""
    torch.manual_seed(config.train.seed)
    module, name = config.traits.objective.split(":")
    objective: Objective = getattr(importlib.import_module(module), name)(config).to(device)
    spec = backbone_spec(config)
    student = objective.build_network(spec, config.backbone.drop_path_rate, "student").to(device)
    teacher = objective.build_network(spec, 0.0, "teacher").to(device)
    copy_to_teacher(teacher, student)
    teacher.requires_grad_(False)
    return Networks(spec, student, teacher, objective, build_optimizer(student, config.optim.decay_positions))


def backbone_spec(config: PretrainConfig) -> BackboneSpec:
    """The backbone that is trained; its stored positions cover the global crops."""
    values = {**config.backbone.architecture(), "image_size": config.views.global_size}
    if config.backbone.family == "vit":
        values |= {"class_token": config.traits.class_token, "final_norm": config.traits.class_token}
    return spec_from_dict(values)


def choose_autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of the networks; `precision` is `auto`, `float32` or `bfloat16`."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def build_optimizer(network: nn.Module, decay_positions: bool = True) -> AdamW:
    """AdamW with two groups, `decay` and `no_decay`; their learning rate and weight decay are set before every step.

    Biases and one-dimensional parameters do not decay; without `decay_positions` neither do position embeddings, relative position
    biases and CLS tokens.
    """
    decay: list[Tensor] = []
    no_decay: list[Tensor] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_exempt_position = name.endswith(_POSITIONS) and not decay_positions
            is_exempt = name.endswith(".bias") or parameter.ndim == 1 or is_exempt_position
            (no_decay if is_exempt else decay).append(parameter)
    exempt: dict[str, Any] = {"params": no_decay, "name": "no_decay", "weight_decay": 0.0}
    return AdamW([{"params": decay, "name": "decay"}, exempt], lr=0.0, fused=True)


@torch.no_grad()
def clip_each_gradient(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale down every parameter's gradient by itself to at most `max_norm` (facebookresearch/dino 7c446df, utils.clip_gradients)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    factors = [(max_norm / (norm + 1e-6)).clamp(max=1.0) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


def copy_to_teacher(teacher: nn.Module, student: nn.Module) -> None:
    """Start the teacher at the student's weights; of a student with further parts (MoBY's predictor) it takes its own."""
    weights = student.state_dict()
    teacher.load_state_dict({name: weights[name] for name in teacher.state_dict()})


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every teacher parameter towards the student's of its name: momentum * teacher + (1 - momentum) * student."""
    moved, towards = dict(teacher.named_parameters()), dict(student.named_parameters())
    get_ema_multi_avg_fn(momentum)(list(moved.values()), [towards[name] for name in moved], 0)
