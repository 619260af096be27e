"""How much memory a run took."""

import resource
import sys
from pathlib import Path

import torch

_KIBIBYTE = 1024


def peak_memory_bytes(device: torch.device) -> int:
    """Peak GPU memory allocated by this process on a GPU; elsewhere the process's peak resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would also count what the parent process held when it started this one.
        kibibytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kibibytes) * _KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KIBIBYTE)
