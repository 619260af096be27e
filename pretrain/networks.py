"""Student and teacher of a run, and what trains them."""

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from backbones.spec import BackboneSpec, spec_from_dict
from pretrain.config import PretrainConfig
from pretrain.objectives.base import Objective
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
    """Moves the student's weights."""


def build_networks(config: PretrainConfig, device: torch.device) -> Networks:
    """Student and teacher with the same fresh weights, determined by the seed."""
    torch.manual_seed(config.train.seed)
    objective = build_objective(config).to(device)
    spec = backbone_spec(config)
    student = objective.build_network(spec, config.backbone.drop_path_rate, "student").to(device)
    teacher = objective.build_network(spec, 0.0, "teacher").to(device)
    copy_to_teacher(teacher, student)
    teacher.requires_grad_(False)
    return Networks(spec, student, teacher, objective, build_optimizer(student, config.optim.decay_positions))


def build_objective(config: PretrainConfig) -> Objective:
    """The objective that the table of methods names."""
    module, name = config.traits.objective.split(":")
    objective: Objective = getattr(importlib.import_module(module), name)(config)
    return objective


def backbone_spec(config: PretrainConfig) -> BackboneSpec:
    """The backbone that is trained; its stored positions cover the global crops."""
    values = {**config.backbone.architecture(), "image_size": config.views.global_size}
    if config.backbone.family == "vit":
        values |= {"class_token": config.traits.class_token, "final_norm": config.traits.class_token}
    return spec_from_dict(values)


def choose_autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of the networks.

    Args:
        precision: `auto`, `float32` or `bfloat16`.
        device: Where they run.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trainable or not."""
    return sum(parameter.numel() for parameter in network.parameters() if isinstance(parameter, Tensor))
