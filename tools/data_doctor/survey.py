"""Examines many files in several processes, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from tools.data_doctor.image_files import FileFacts

# Fewer files are read sooner than a process starts.
_FILES_PER_PROCESS = 256
_CHUNK = 32
_SHOWN_AFTER_S = 0.5


def survey(paths: Sequence[Path], examine: Callable[[Path], FileFacts], jobs: int, what: str) -> list[FileFacts]:
    """Examine files.

    Args:
        paths: Which.
        examine: A function of a module, so that other processes find it.
        jobs: Processes at most; 0: one per usable core.
        what: For the progress bar.

    Returns:
        In the order of the paths.
    """
    workers = min(jobs or _usable_cores(), len(paths) // _FILES_PER_PROCESS)
    facts = map(examine, paths) if workers <= 1 else _in_processes(paths, examine, workers)
    return list(tqdm(facts, desc=what, total=len(paths), unit="file", delay=_SHOWN_AFTER_S, mininterval=0.5, leave=False))


def _in_processes(paths: Sequence[Path], examine: Callable[[Path], FileFacts], workers: int) -> Iterator[FileFacts]:
    # New processes, not forks: a fork of a process with threads (torch's, OpenCV's) may hang.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(examine, paths, chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, what waits is not worth waiting for


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
