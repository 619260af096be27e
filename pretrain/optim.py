"""AdamW as DINO drives it: which parameters decay, per-tensor clipping, the frozen last layer, the teacher's moving average."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

REFERENCE_BATCH = 256
"""The batch to which `lr` refers; the learning rate grows linearly with the batch."""


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW and its schedules (facebookresearch/dino 7c446df)."""

    lr: float = 0.0005
    """Peak learning rate for a global batch of 256; scaled linearly with the batch."""
    min_lr: float = 1e-6
    """Learning rate at the end; not scaled."""
    warmup_epochs: int = 10
    """Epochs of linear warm-up of the learning rate from 0."""
    weight_decay: float = 0.04
    """Weight decay at the start; never on biases and other one-dimensional parameters."""
    weight_decay_end: float = 0.4
    """Weight decay at the end of its cosine."""
    clip_grad: float = 3.0
    """Largest gradient norm; 0 for no clipping."""
    clip_each: bool = True
    """Whether `clip_grad` bounds each parameter tensor by itself, as in DINO; otherwise all together, as in MoBY."""
    decay_positions: bool = True
    """Whether position embeddings, relative position biases and CLS tokens decay, as in DINO; not so in MoBY and Swin."""
    freeze_last_layer_epochs: int = 1
    """Epochs at the start in which the last layers of the projection heads do not move."""
    teacher_momentum: float = 0.996
    """Weight of the past in the teacher's moving average at the start; rises to 1 by a cosine."""

    def __post_init__(self) -> None:
        """Reject values without meaning."""
        if self.lr <= 0 or self.min_lr < 0 or self.weight_decay < 0 or self.weight_decay_end < 0 or self.clip_grad < 0:
            raise ValueError(f"optim: learning rates, weight decay and clip_grad must not be negative, and lr not 0: {self}")
        if not 0 <= self.teacher_momentum <= 1:
            raise ValueError(f"optim.teacher_momentum={self.teacher_momentum} must be in [0, 1]")
        if self.warmup_epochs < 0 or self.freeze_last_layer_epochs < 0:
            raise ValueError("optim.warmup_epochs and optim.freeze_last_layer_epochs must not be negative")


_POSITIONS = ("pos_embed", "cls_token", "relative_position_bias_table")


def build_optimizer(network: nn.Module, decay_positions: bool = True) -> AdamW:
    """AdamW with two groups: `decay` and `no_decay` (biases and one-dimensional parameters).

    Learning rate and weight decay are set before every step by `set_schedule`.

    Args:
        network: The student.
        decay_positions: See `OptimConfig`.
    """

    def exempt(name: str, parameter: Tensor) -> bool:
        is_position = name.endswith(_POSITIONS) and not decay_positions
        return name.endswith(".bias") or parameter.ndim == 1 or is_position

    trainable = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    no_decay = [parameter for name, parameter in trainable if exempt(name, parameter)]
    decay = [parameter for name, parameter in trainable if not exempt(name, parameter)]
    groups: list[dict[str, Any]] = [
        {"params": decay, "name": "decay"},
        {"params": no_decay, "name": "no_decay", "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=0.0, fused=True)


def set_schedule(optimizer: AdamW, lr: float, weight_decay: float) -> None:
    """Set the learning rate of both groups and the weight decay of `decay`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["name"] == "decay":
            group["weight_decay"] = weight_decay


@torch.no_grad()
def clip_each_gradient(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale down every parameter's gradient by itself to at most `max_norm` (facebookresearch/dino 7c446df, utils.clip_gradients)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    factors = [(max_norm / (norm + 1e-6)).clamp(max=1.0) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


def drop_last_layer_gradients(network: nn.Module) -> None:
    """Leave the last layers of the projection heads out of this step: neither gradient nor weight decay reaches them."""
    for name, parameter in network.named_parameters():
        if ".last_layer." in name:
            parameter.grad = None


def copy_to_teacher(teacher: nn.Module, student: nn.Module) -> None:
    """Start the teacher at the student's weights; of a student with further parts (MoBY's predictor) it takes its own."""
    weights = student.state_dict()
    teacher.load_state_dict({name: weights[name] for name in teacher.state_dict()})


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every teacher parameter towards the student's of its name: momentum * teacher + (1 - momentum) * student."""
    moved = dict(teacher.named_parameters())
    towards = dict(student.named_parameters())
    torch._foreach_lerp_(list(moved.values()), [towards[name] for name in moved], 1 - momentum)
