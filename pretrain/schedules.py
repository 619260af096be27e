"""Values that change with the step: learning rate, weight decay, teacher momentum, teacher temperature.

Each schedule is a function of the step or epoch alone, so that a resumed run needs no state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pretrain.config import PretrainConfig

REFERENCE_BATCH = 256
"""The batch to which `optim.lr` refers; the learning rate grows linearly with the batch."""


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """A linear warm-up from 0, then a half cosine from `start` to `end`; facebookresearch/dino 7c446df, utils.py."""

    start: float
    """Value at the end of the warm-up."""
    end: float
    """Value that the cosine approaches; the last step is one short of it."""
    steps: int
    """Total number of steps, warm-up included."""
    warmup_steps: int = 0
    """Steps of the warm-up; its last step has already the value `start`."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps <= self.steps or self.steps < 1:
            raise ValueError(f"a schedule of {self.steps} steps cannot begin with {self.warmup_steps} steps of warm-up")

    def __call__(self, step: int) -> float:
        """The value at a 0-based step."""
        if step < self.warmup_steps:
            return self.start * step / max(self.warmup_steps - 1, 1)
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, kw_only=True)
class TemperatureSchedule:
    """A linear warm-up over epochs from `start` to `end`, then constant; constant within an epoch."""

    start: float
    """Value in epoch 0."""
    end: float
    """Value from `warmup_epochs` on."""
    warmup_epochs: int = 0
    """Epochs of the warm-up; its last epoch has already the value `end`."""

    def __call__(self, epoch: int) -> float:
        """The value in a 0-based epoch."""
        if epoch >= self.warmup_epochs:
            return self.end
        return self.start + (self.end - self.start) * epoch / max(self.warmup_epochs - 1, 1)


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
    optim = config.optim
    steps = config.train.epochs * steps_per_epoch
    lr = CosineSchedule(
        start=optim.lr * config.train.batch_size / REFERENCE_BATCH,
        end=optim.min_lr,
        steps=steps,
        warmup_steps=optim.warmup_epochs * steps_per_epoch,
    )
    weight_decay = CosineSchedule(start=optim.weight_decay, end=optim.weight_decay_end, steps=steps)
    momentum = CosineSchedule(start=optim.teacher_momentum, end=1.0, steps=steps)
    # A method without prototypes sharpens nothing.
    temperature = TemperatureSchedule(start=1.0, end=1.0)
    if config.traits.prototypes:
        temperature = TemperatureSchedule(
            start=config.dino.warmup_teacher_temperature,
            end=config.dino.teacher_temperature,
            warmup_epochs=config.dino.warmup_teacher_temperature_epochs,
        )

    def settings(step: int) -> StepSettings:
        epoch = step // steps_per_epoch
        return StepSettings(
            lr=lr(step),
            weight_decay=weight_decay(step),
            teacher_momentum=momentum(step),
            teacher_temperature=temperature(epoch),
            clip_grad=optim.clip_grad,
            clip_each=optim.clip_each,
            freeze_last_layer=epoch < optim.freeze_last_layer_epochs,
        )

    return settings
