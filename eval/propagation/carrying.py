"""Labels of any kind through one video, whose frames are decoded ahead in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor

from eval.propagation.features import FeatureExtractor, input_size, read_frame
from eval.propagation.propagator import propagate_sequence
from eval.propagation.protocol import Rules

Item = TypeVar("Item")
Done = TypeVar("Done")
Start = Callable[[tuple[int, int]], Tensor]
"""Labels [h, w, C] float32 of a frame on a grid (h, w)."""

_READ_AHEAD = 3  # frames decoded ahead of the network, at most


def carried_labels(
    frames: Sequence[Path],
    file_size: tuple[int, int],
    start: Start,
    extract: FeatureExtractor,
    rules: Rules,
    beginnings: Mapping[int, Start] = MappingProxyType({}),
) -> Iterator[Tensor]:
    """Soft labels [h, w, C] float32 of all frames but the first, on the device, from the files of the frames.

    The files are of one (height, width); `start` and `beginnings` as in `propagate_sequence`.
    """
    size = input_size(*file_size, rules, extract.input_multiple)

    def read(path: Path) -> Tensor:
        image_3HW = read_frame(path, size, rules, file_size)
        # Only from pinned memory does a copy to a GPU run beside its work.
        return image_3HW.pin_memory() if extract.device.type == "cuda" else image_3HW

    with ThreadPoolExecutor(threads_for(extract.device)) as readers:
        images = in_threads(readers, read, frames, _READ_AHEAD)
        yield from propagate_sequence(images, start, extract, rules, beginnings)


def threads_for(device: torch.device) -> int:
    """How many threads decode, and how many write.

    Decoding takes 7 ms a frame, writing 5 ms a mask: beside a GPU, one thread for each may be the slowest part.
    """
    return 1 if device.type == "cpu" else 4


def in_threads(
    pool: ThreadPoolExecutor, work: Callable[[Item], Done], items: Iterable[Item], most_waiting: int
) -> Iterator[Done]:
    """What `work` returns for each item, in their order; later items are worked on before earlier results are asked for."""
    waiting: deque[Future[Done]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > most_waiting:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()
