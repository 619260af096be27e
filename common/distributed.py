"""One process or several, under torchrun or Slurm: the device, the group, what they exchange; precision and memory of a device."""

import logging
import os
import re
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from common.files import lock_folder, one_line

# The first process to finish an evaluation waits for the last, longer than gloo's half hour on a CPU; who dies is noticed at once.
_LONGEST_WAIT = timedelta(days=7)
# NCCL's ten minutes are less than the check of a large data set on a slow disk may take.
_LONGEST_WAIT_OF_GPUS = timedelta(hours=1)
_ALONE = "unset RANK, LOCAL_RANK, WORLD_SIZE and SLURM_NTASKS to run alone"
_JOINING = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # what a process needs beside WORLD_SIZE to find the others
_PATIENCE_SECONDS = 20  # before a process says that it waits for others to begin

_group: dist.ProcessGroup | None = None
"""In which our processes exchange, where another program, such as a training that evaluates its network, has made the default one."""

logger = logging.getLogger(__name__)


def rank() -> int:
    """This process's number, by its group or, before it has joined one, by torchrun's variables."""
    return dist.get_rank() if dist.is_initialized() else _number("RANK", 0)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else max(1, _number("WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number on its machine, by torchrun's variable."""
    return _number("LOCAL_RANK", 0)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        raise ValueError(f"{variable}={text} is not a number; {_ALONE}")
    return int(text)


def choose_device(name: str) -> torch.device:
    """The device of this process, which becomes CUDA's current one: its GPU for `cuda`; for `auto` that or, without any, the CPU."""
    known = re.fullmatch(r"auto|cpu|cuda(?::([0-9]+))?", name)
    if not known:
        raise ValueError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: no CUDA device is available here; use cpu or auto")
    count = torch.cuda.device_count()
    # Under Slurm's --gpus-per-task, each process sees one GPU, its own.
    index = int(known[1]) if known[1] else local_rank() % count
    if index >= count:
        raise ValueError(f"device {name!r}: this machine has {count} usable GPUs; use auto or cuda")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def queued(values: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; where that is a GPU, it is queued behind the GPU's work, for which a plain `.to(device)` would wait."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


@contextmanager
def process_group(device: torch.device, backend: str | None = None) -> Iterator[None]:
    """Join the other processes for the length of the block, if there are others and no group yet.

    By NCCL on GPUs and gloo on the CPU; processes that exchange only what is on the CPU give `gloo` themselves. Where there is a
    group of another program's, these get one of their own beside it, which does not end after NCCL's ten minutes.
    """
    if world_size() == 1 or (dist.is_initialized() and (_group or backend != "gloo")):
        yield
        return
    if dist.is_initialized():
        with _group_beside_the_default():
            yield
        return
    backend = backend or ("nccl" if device.type == "cuda" else "gloo")
    if missing := [name for name in _JOINING if not os.environ.get(name)]:
        given = f"WORLD_SIZE={world_size()} is set, but not {', '.join(missing)}, without which {world_size()} processes cannot join"
        raise ValueError(f"{given}; start them with torchrun or Slurm, or {_ALONE}")
    local = _number("LOCAL_WORLD_SIZE", 1)
    if backend == "nccl" and local > 1 and (local > torch.cuda.device_count() or device.index != local_rank()):
        shared = f"{local} processes on this machine share its GPUs, of which {torch.cuda.device_count()} are usable"
        raise ValueError(f"{shared}; start at most one for each GPU, and give no number of a GPU with the device")
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    text = f"process {rank()} of {world_size()} waits for the others at {address}; start them, or {_ALONE}"
    reminder = threading.Timer(_PATIENCE_SECONDS, logger.warning, (text,))
    reminder.start()
    try:
        longest = _LONGEST_WAIT if backend == "gloo" else _LONGEST_WAIT_OF_GPUS
        dist.init_process_group(backend, timeout=longest, device_id=device if backend == "nccl" else None)
    except (ValueError, RuntimeError) as error:
        what = f"process {rank()} of {world_size()} cannot join the others at {address}"
        raise ValueError(f"{what}: {one_line(str(error), 300)}; {_ALONE}") from error
    finally:
        reminder.cancel()
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _group_beside_the_default() -> Iterator[None]:
    global _group
    own = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    assert isinstance(own, dist.ProcessGroup)  # of which every process is a member
    _group = own
    try:
        yield
    finally:
        _group = None
        dist.destroy_process_group(own)


def wait_for_all() -> None:
    """Return when every process has come here; ValueError if one never will."""
    try:
        if dist.is_initialized():
            dist.barrier(_group)
    except RuntimeError as error:
        raise ValueError("another process of this run has stopped; its own message says why") from error


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """`lock_folder` by the first process, for all of them: all fail together where another run holds the folder."""
    failure = ""
    with ExitStack() as stack:
        if rank() == 0:
            try:
                stack.enter_context(lock_folder(folder))
            except OSError as error:
                failure = f"cannot use {error.filename or folder}: {error.strerror or error}"
            except ValueError as error:
                failure = str(error)
        if failure := gather_objects(failure)[0]:
            raise ValueError(failure)
        yield


def require_same(value: str, what: str) -> None:
    """Raise ValueError in all processes if they differ in a value, which `what` names."""
    values = gather_objects(value)
    if len(set(values)) > 1:
        shown = ", ".join(f"{item} (process {place})" for place, item in enumerate(values))
        raise ValueError(f"{what} must be the same for all processes, but is {shown}")


def gather_objects(value: Any) -> list[Any]:
    """Every process's value, in their order, on all of them; it must be picklable."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, _group)
    return values


def sum_over_processes(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The sum of each tensor over all processes, computed in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor, group=_group)
    return tensors


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    (sums,) = sum_over_processes(torch.tensor(list(values.values()), dtype=torch.float64, device=device))
    return dict(zip(values, (sums / world_size()).tolist(), strict=True))


def gather_from_processes(shares: Tensor) -> Tensor:
    """The global batch [B * world_size, ...] of shares [B, ...], each every world_size-th row of it; without gradient."""
    if not dist.is_initialized():
        return shares
    gathered = [torch.empty_like(shares) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, shares.contiguous(), _group)
    return torch.stack(gathered, dim=1).flatten(0, 1)


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep the factors of float32 products from being rounded to TF32 or bfloat16, with 10 and 7 bits of mantissa, in the block.

    On NVIDIA GPUs since Ampere, PyTorch does that to convolutions unless told otherwise: to every layer of a ResNet and to the patch
    embedding of a ViT. A training may have allowed more. Features would then depend on the machine. Also a decorator.
    """
    backends: Any = torch.backends
    products = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    # The older switches, `allow_tf32`, cannot even be read where a program has used these.
    before = [kind.fp32_precision for kind in products]
    for kind in products:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        for kind, precision in zip(products, before, strict=True):
            kind.fp32_precision = precision


def peak_memory_bytes(device: torch.device) -> int:
    """Peak GPU memory allocated by this process on a GPU; elsewhere the process's peak resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux, getrusage would also count what the parent process held when it started this one.
    kibibytes = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert kibibytes is not None
    return int(kibibytes[1]) * 1024
