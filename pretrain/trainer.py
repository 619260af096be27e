"""One step of self-distillation, and the loop over a run's steps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from pretrain.objectives.base import Objective
from pretrain.optim import clip_each_gradient, drop_last_layer_gradients, set_schedule, update_teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """The values of all schedules at one step."""

    lr: float
    """Learning rate."""
    weight_decay: float
    """Weight decay of the decaying parameters."""
    teacher_momentum: float
    """Weight of the past in the teacher."""
    teacher_temperature: float
    """Sharpening of the targets."""
    clip_grad: float
    """Largest gradient norm; 0 for no clipping."""
    clip_each: bool = True
    """Whether `clip_grad` bounds each parameter tensor by itself or all together."""
    freeze_last_layer: bool
    """Whether the heads' last layers stay as they are in this step."""


def training_step(
    student: nn.Module,
    teacher: nn.Module,
    objective: Objective,
    optimizer: AdamW,
    crops: Sequence[Tensor],
    settings: StepSettings,
    autocast: torch.autocast | None = None,
    boxes: Sequence[Tensor] = (),
    diagnose: bool = False,
) -> dict[str, Tensor]:
    """One update of student and teacher.

    Args:
        student: Possibly wrapped in DistributedDataParallel.
        teacher: The student's moving average; its parameters need no gradient.
        objective: The loss.
        optimizer: From `pretrain.optim.build_optimizer`.
        crops: [B, 3, H, W] per view, global ones first.
        settings: The schedules at this step.
        autocast: Reduced precision for the networks; the losses are always in float32.
        boxes: Where the crops were cut out, for objectives that compare places.
        diagnose: Whether to look for signs of collapse; costs a little time.

    Returns:
        The losses before the update, detached, and `Objective.diagnostics` of the targets if wanted.
    """
    set_schedule(optimizer, settings.lr, settings.weight_decay)
    with autocast or torch.autocast(crops[0].device.type, enabled=False):
        with torch.no_grad():
            targets = teacher(objective.teacher_crops(crops))
        outputs = student(crops)
    signs = objective.diagnostics(targets, settings.teacher_temperature) if diagnose else {}
    losses = objective(outputs, targets, settings.teacher_temperature, boxes)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    objective.move()
    bare_student = student.module if isinstance(student, nn.parallel.DistributedDataParallel) else student
    if settings.clip_grad:
        clip = clip_each_gradient if settings.clip_each else nn.utils.clip_grad_norm_
        clip(bare_student.parameters(), settings.clip_grad)
    if settings.freeze_last_layer:
        drop_last_layer_gradients(bare_student)
    optimizer.step()
    update_teacher(teacher, bare_student, settings.teacher_momentum)
    return {name: value.detach() for name, value in losses.items()} | signs
