"""AdamW as DINO drives it: which parameters decay, per-tensor clipping, the frozen last layer, the teacher's moving average."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

_POSITIONS = ("pos_embed", "cls_token", "relative_position_bias_table")


def build_optimizer(network: nn.Module, decay_positions: bool = True) -> AdamW:
    """AdamW with two groups: `decay` and `no_decay` (biases and one-dimensional parameters).

    Learning rate and weight decay are set before every step by `set_schedule`.

    Args:
        network: The student.
        decay_positions: Whether position embeddings, relative position biases and CLS tokens decay.
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
