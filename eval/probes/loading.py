"""Decoding images in other processes, in order, and work that several processes share."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from common.distributed import gather_objects, rank, world_size
from common.launch import loader_processes

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")


def _read(read: Callable[[Item], Read], item: Item) -> Read | ValueError:
    # DataLoader would bury an exception under its workers' tracebacks.
    try:
        return read(item)
    except ValueError as error:
        return error


def load_in_order(
    read: Callable[[Item], Read], items: Sequence[Item], item_bytes: int, workers: int, device: torch.device
) -> Iterator[Read]:
    """What `read` makes of every item, such as tensors of a batch, in so many processes (0: this one), ready for the device.

    `read` and the items must be picklable; `item_bytes` is about what one of its results takes. Its ValueErrors are raised here.
    """
    dataset: Any = items
    processes = loader_processes(workers, item_bytes, "--workers") if items else 0
    pinned = device.type == "cuda"
    for found in DataLoader(
        dataset, batch_size=None, collate_fn=partial(_read, read), num_workers=processes, pin_memory=pinned
    ):
        if isinstance(found, ValueError):
            raise found
        yield found


def over_images(
    count: int, read: Callable[[int], Read], make: Callable[[Read], Made], item_bytes: int, workers: int, device: torch.device
) -> list[Made]:
    """What `make` makes of every image that `read` gives by index, in their order, on every process; each process makes a share."""
    own = range(rank(), count, world_size())
    loaded = load_in_order(read, own, item_bytes, workers, device)
    made = {index: make(found) for index, found in zip(own, loaded, strict=True)}
    everything = {index: found for share in gather_objects(made) for index, found in share.items()}
    return [everything[index] for index in range(count)]
