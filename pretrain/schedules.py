"""Values that change with the step: learning rate, weight decay, teacher momentum, teacher temperature.

Each schedule is a function of the step or epoch alone, so that a resumed run needs no state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pretrain.config import PretrainConfig

REFERENCE_BATCH = 256
"""The batch to which `optim.lr` refers; the learning rate grows linearly with the batch."""


def cosine(step: int, start: float, end: float, steps: int, warmup_steps: int = 0) -> float:
    """A linear warm-up from 0, then a half cosine from `start` to `end`; facebookresearch/dino 7c446df, utils.py.

    The last step of the warm-up has already the value `start`; the last of all `steps` is one short of `end`.
    """
    if step < warmup_steps:
        return start * step / max(warmup_steps - 1, 1)
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def linear(epoch: int, start: float, end: float, epochs: int) -> float:
    """From `start` in the first epoch to `end`, which the last of the `epochs` has already; constant afterwards."""
    if epoch >= epochs:
        return end
    return start + (end - start) * epoch / max(epochs - 1, 1)


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


def step_settings(config: PretrainConfig, steps_per_epoch: int) -> Callable[[int], StepSettings]:
    """The values of all schedules by the number of steps done before.

    The peak learning rate is `optim.lr` x global batch / 256, whatever the number of processes.
    """
    optim, dino = config.optim, config.dino
    steps = config.train.epochs * steps_per_epoch
    peak = optim.lr * config.train.batch_size / REFERENCE_BATCH
    # A method without prototypes sharpens nothing.
    first, last, warmup_epochs = 1.0, 1.0, 0
    if config.traits.prototypes:
        first, last = dino.warmup_teacher_temperature, dino.teacher_temperature
        warmup_epochs = dino.warmup_teacher_temperature_epochs

    def settings(step: int) -> StepSettings:
        epoch = step // steps_per_epoch
        return StepSettings(
            lr=cosine(step, peak, optim.min_lr, steps, optim.warmup_epochs * steps_per_epoch),
            weight_decay=cosine(step, optim.weight_decay, optim.weight_decay_end, steps),
            teacher_momentum=cosine(step, optim.teacher_momentum, 1.0, steps),
            teacher_temperature=linear(epoch, first, last, warmup_epochs),
            clip_grad=optim.clip_grad,
            clip_each=optim.clip_each,
            freeze_last_layer=epoch < optim.freeze_last_layer_epochs,
        )

    return settings
