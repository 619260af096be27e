"""One process or several, under torchrun or Slurm: setting up, and the few things they exchange."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group that torchrun's environment variables describe; nothing to do without them, or in a caller's group.

    NCCL on GPUs, gloo on the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device of this process.

    Args:
        name: `auto` (this process's GPU, else the CPU), `cpu`, or `cuda`.

    Raises:
        ValueError: If a GPU is asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: no CUDA device is available; use cpu or auto")
    # Under Slurm's --gpus-per-task, each process sees one GPU, its own.
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def require_same(value: str, what: str) -> None:
    """Make sure that all processes have the same.

    Args:
        value: This process's.
        what: Of what, for the error.

    Raises:
        ValueError: In all processes, if they differ; shows each one's.
    """
    if world_size() == 1:
        return
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    if len(set(values)) > 1:
        shown = ", ".join(f"{item} (process {place})" for place, item in enumerate(values))
        raise ValueError(f"{what} must be the same for all processes, but is {shown}")


def sum_over_processes(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The sum of each tensor over all processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
    return tensors


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The mean of each number over all processes."""
    if world_size() == 1:
        return values
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(values, (tensor / world_size()).tolist(), strict=True))


def from_first_process(text: str) -> str:
    """The first process's text, on all of them; all wait for it."""
    if world_size() == 1:
        return text
    texts = [text]
    dist.broadcast_object_list(texts, src=0)
    return texts[0]


def gather_from_processes(shares: Tensor) -> Tensor:
    """The whole of what is spread over the processes as the sampler spreads images: every world_size-th row each.

    Args:
        shares: [B, ...], of equal shape in all processes, without gradient.

    Returns:
        [B * world_size, ...] in the order of the global batch.
    """
    if world_size() == 1:
        return shares
    gathered = [torch.empty_like(shares) for _ in range(world_size())]
    dist.all_gather(gathered, shares.contiguous())
    return torch.stack(gathered, dim=1).flatten(0, 1)
