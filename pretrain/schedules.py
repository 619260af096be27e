"""Values that change with the step: learning rate, weight decay, teacher momentum, teacher temperature.

Each schedule is a function of the step or epoch alone, so that a resumed run needs no state.
"""

import math
from dataclasses import dataclass


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
        """Reject a warm-up that leaves no step for the cosine."""
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
