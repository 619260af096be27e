"""The processes that decode and augment: one thread each, and a core of its own where that is asked for."""

import os
from collections.abc import Sequence

import cv2

from common.interruption import leave_stopping_to_parent


class WorkerSetup:
    """Called in each worker when it starts."""

    def __init__(self, cores: Sequence[int] | None) -> None:
        """Store the cores.

        Args:
            cores: For each worker; none to let the system decide.
        """
        self.cores = cores

    def __call__(self, worker: int) -> None:
        """Keep OpenCV to one thread, as the loader keeps torch, and the worker to its core; stopping is left to the parent."""
        leave_stopping_to_parent(worker)
        cv2.setNumThreads(0)
        if self.cores is not None:
            os.sched_setaffinity(0, {self.cores[worker]})


def worker_cores(workers: int) -> list[int]:
    """The cores for a process's workers, of those that the process may use; the processes of one machine take different ones.

    Args:
        workers: Of each process.

    Raises:
        ValueError: If the system has no such thing, or fewer cores than workers.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("data.pin_workers: this system cannot keep processes to cores; leave it out")
    cores = sorted(os.sched_getaffinity(0))
    local_rank, local_processes = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local_processes * workers > len(cores):
        raise ValueError(
            f"data.pin_workers: {local_processes * workers} workers on this machine and {len(cores)} cores for them; "
            "lower data.workers or leave it out"
        )
    return cores[local_rank * workers : (local_rank + 1) * workers]
