"""The processes that torchrun or Slurm started for one evaluation."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, TypeVar

import torch
import torch.distributed as dist

# The first process to finish waits for the last; half an hour, the default, can be too short on a CPU.
_LONGEST_WAIT = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Process:
    """Which of how many processes this one is."""

    rank: int = 0
    """0-based."""
    world_size: int = 1
    """Number of processes, over all nodes."""
    local_rank: int = 0
    """0-based, within the node."""

    @classmethod
    def current(cls) -> Self:
        """This process's, by torchrun's variables; a process of its own without them."""
        rank, world_size, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank=rank, world_size=max(1, world_size), local_rank=local_rank)

    def device(self, name: str) -> torch.device:
        """The device of an option's value; `auto` and `cuda` deal out the node's GPUs to its processes.

        Raises:
            ValueError: If there is no such device.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"device={name!r} is not a device; use auto, cpu or cuda") from error
        if device.type != "cuda":
            return device
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"device={name!r}: this machine has {count} usable GPUs; use auto or cpu")
        return torch.device("cuda", self.local_rank % count) if device.index is None else device


ProcessT = TypeVar("ProcessT", bound=Process)


@contextmanager
def joined(process: ProcessT) -> Iterator[ProcessT]:
    """A process, joined with the others as long as the context lasts; what they exchange goes over the CPU."""
    if process.world_size == 1:
        yield process
        return
    dist.init_process_group("gloo", rank=process.rank, world_size=process.world_size, timeout=_LONGEST_WAIT)
    try:
        yield process
    finally:
        dist.destroy_process_group()


class PeerError(ValueError):
    """Another process has stopped, for a reason that it has told itself."""


def wait_for_all(process: Process) -> None:
    """Return when every process has come here.

    Raises:
        PeerError: If one never will.
    """
    if process.world_size == 1:
        return
    try:
        dist.barrier()
    except RuntimeError as error:
        raise PeerError("another process of this run has stopped; its own message says why") from error
