"""Values that change with the step: learning rate, weight decay, teacher momentum, teacher temperature.

Each schedule is a function of the step or epoch alone, so that a resumed run needs no state.
"""

import math
from dataclasses import dataclass

from pretrain.config import PretrainConfig

REFERENCE_BATCH = 256
"""The batch to which `optim.lr` refers; the learning rate grows linearly with the batch, whatever the number of processes."""


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
