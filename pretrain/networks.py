"""Student, teacher and what trains them."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW

from backbones.spec import BackboneSpec
from pretrain.config import PretrainConfig
from pretrain.objectives.base import Objective
from pretrain.objectives.build import build_objective
from pretrain.onednn_linear import train_by_onednn
from pretrain.optim import build_optimizer, copy_to_teacher


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
    """Of the student."""


def build_networks(config: PretrainConfig, device: torch.device) -> Networks:
    """Student and teacher with the same fresh weights, determined by the seed."""
    torch.manual_seed(config.train.seed)
    objective = build_objective(config).to(device)
    spec = objective.backbone_spec(config.backbone.architecture(), config.views.global_size)
    student = objective.build_network(spec, config.backbone.drop_path_rate, "student").to(device)
    teacher = objective.build_network(spec, 0.0, "teacher").to(device)
    copy_to_teacher(teacher, student)
    teacher.requires_grad_(False)
    if device.type == "cpu":
        train_by_onednn(student)
        train_by_onednn(teacher)
    return Networks(spec, student, teacher, objective, build_optimizer(student, config.optim.decay_positions))


def choose_autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of the networks.

    Args:
        precision: `auto`, `float32` or `bfloat16`.
        device: Where they run.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
