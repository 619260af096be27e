"""One step of self-distillation, and the loop over a run's steps."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
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
    accumulate: int = 1,
) -> dict[str, Tensor]:
    """One update of student and teacher.

    With `accumulate` the batch goes through the networks in parts, whose losses are averaged; what is kept between steps (centres,
    queues) moves once, by all parts. For DINO, SelfPatch and PW-Self this is the step of the whole batch up to rounding and the draws
    of stochastic depth. MoBY differs: its batch normalisation takes the statistics of each part.

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
        accumulate: Number of equal parts in which the batch is processed, one after another.

    Returns:
        The losses before the update, detached, and `Objective.diagnostics` of the last part's targets if wanted.
    """
    set_schedule(optimizer, settings.lr, settings.weight_decay)
    # Before the forward pass, so that activations can take the place of the last step's gradients.
    optimizer.zero_grad(set_to_none=True)
    parts = list(zip(_split(crops, accumulate), _split(boxes, accumulate), strict=True))
    totals: dict[str, Tensor] = {}
    signs: dict[str, Tensor] = {}
    for index, (part_crops, part_boxes) in enumerate(parts):
        is_last = index + 1 == accumulate
        with _gradient_exchange(student, is_last):
            with autocast or torch.autocast(crops[0].device.type, enabled=False):
                with torch.no_grad():
                    targets = teacher(objective.teacher_crops(part_crops))
                outputs = student(part_crops)
            losses = objective(outputs, targets, settings.teacher_temperature, part_boxes)
            if diagnose and is_last:
                signs = objective.diagnostics(targets, settings.teacher_temperature)
            # What the backward pass does not need is free before it.
            del outputs, targets
            (losses["loss"] / accumulate).backward()
        for name, value in losses.items():
            share = value.detach() / accumulate
            totals[name] = totals[name] + share if name in totals else share
    objective.move()
    bare_student = student.module if isinstance(student, DistributedDataParallel) else student
    if settings.clip_grad:
        clip = clip_each_gradient if settings.clip_each else nn.utils.clip_grad_norm_
        clip(bare_student.parameters(), settings.clip_grad)
    if settings.freeze_last_layer:
        drop_last_layer_gradients(bare_student)
    optimizer.step()
    update_teacher(teacher, bare_student, settings.teacher_momentum)
    return totals | signs


def _split(views: Sequence[Tensor], parts: int) -> list[list[Tensor]]:
    """For each part its share of every view's images."""
    assert all(len(view) % parts == 0 for view in views)
    return [[view.chunk(parts)[part] for view in views] for part in range(parts)]


def _gradient_exchange(student: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """Processes exchange gradients once per step, with those of the last part."""
    if isinstance(student, DistributedDataParallel) and not wanted:
        return student.no_sync()
    return contextlib.nullcontext()
