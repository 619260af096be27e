"""The total batch is part of a protocol: how processes, images per process and gradient accumulation make it up."""

import dataclasses
import os
from dataclasses import dataclass

from mmengine.config import Config


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """A split of the total batch.

    Raises:
        ValueError: If processes times images per process does not divide the total.
    """

    total: int
    """Images per optimiser update, over all processes."""
    per_device: int
    """Images per process and forward pass."""
    world_size: int
    """Number of processes."""

    def __post_init__(self) -> None:
        """Reject a split that cannot give the total."""
        if self.total < 1 or self.per_device < 1:
            raise ValueError(f"batch size {self.total} and per-device batch {self.per_device} must be positive")
        if self.total % (self.per_device * self.world_size):
            raise ValueError(
                f"the batch of {self.total} images cannot be split into {self.world_size} process(es) of {self.per_device} image(s) "
                "and whole accumulation steps; choose a per-device batch whose product with the number of processes divides it"
            )

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser update."""
        return self.total // (self.per_device * self.world_size)

    def describe(self) -> dict[str, int]:
        """For the result."""
        return dataclasses.asdict(self) | {"accumulation": self.accumulation}


def published_batch(config: Config) -> BatchPlan:
    """The batch of the published run, `batch = dict(total=..., devices=...)` in a task's config file."""
    total, devices = config.batch.total, config.batch.devices
    return BatchPlan(total=total, per_device=total // devices, world_size=devices)


def world_size() -> int:
    """Number of processes as torchrun states it; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))
