"""Student and teacher of a run, and how their weights move: AdamW as DINO drives it, and the teacher's moving average."""

import importlib
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
    norms_P = torch.stack(torch._foreach_norm(gradients))
    factors_P = (max_norm / (norms_P + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factors_P.unbind())


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every teacher parameter towards the student's of its name: momentum * teacher + (1 - momentum) * student."""
    moved, towards = dict(teacher.named_parameters()), dict(student.named_parameters())
    get_ema_multi_avg_fn(momentum)(list(moved.values()), [towards[name] for name in moved], 0)
