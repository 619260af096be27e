"""Batches of a probe's training on features that are made as they are needed, and the progress that a run has left.

Every process makes the features of its part of a batch; all of them get the whole batch and take the same step, so that the outcome
does not depend on their number, and batch norm sees every image, as in the published runs.

Shapes: B images of a batch.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.checkpoint import CheckpointError, load_checkpoint
from common.distributed import gather_objects, rank, require_same, world_size
from eval.probes.loading import load_in_order

logger = logging.getLogger(__name__)

Maps = dict[str, list[Tensor]]
"""Layer -> its maps [B, D, h, w]."""
Draw = tuple[int, int]
"""Number of the pass, index of the image: what is random about it follows from these and the seed."""
ReadBatch = Callable[[Sequence[Draw]], tuple[Tensor, Tensor]]
"""Images and targets [B, ...] of a part of a batch; goes to other processes."""


def seed_of(*parts: int) -> int:
    """A seed for what these numbers identify."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:6], "big")


def resume(checkpoint: Path, digest: str, parts: Mapping[str, nn.Module | Optimizer]) -> dict[str, Any]:
    """Load what an earlier run has left of its progress into the parts; what it noted, such as `updates`.

    It noted 0 updates if it left nothing, or if the machine crashed while this was written. ValueError if its `inputs` are not this
    digest of everything that determines the outcome, or if not all processes find the same.
    """
    state = _left(checkpoint, digest, parts)
    require_same(f"{state['updates']}", f"{checkpoint}, which all machines must share: the number of updates in it")
    return state


def _left(checkpoint: Path, digest: str, parts: Mapping[str, nn.Module | Optimizer]) -> dict[str, Any]:
    if not checkpoint.exists():
        return {"updates": 0}
    try:
        state = load_checkpoint(checkpoint)
    except CheckpointError as error:
        logger.warning("%s; the probe is trained anew", error)
        return {"updates": 0}
    if not isinstance(state, dict) or state.get("inputs") != digest:
        raise ValueError(f"{checkpoint}: of an unfinished run with other inputs; choose another --output or remove it")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        logger.info("%d updates were made by an earlier run", state["updates"])
    except Exception as error:  # whatever torch raises for what does not fit
        raise ValueError(f"{checkpoint}: damaged ({error}); remove it to train anew") from error
    return state


def training_batches(
    first: int,
    total: int,
    num_images: int,
    batch_size: int,
    seed: int,
    read: ReadBatch,
    image_bytes: int,
    workers: int,
    extract: Callable[[Tensor], Maps],
    device: torch.device,
) -> Iterator[tuple[Maps, Tensor]]:
    """Maps and targets of whole batches, of the updates from the first on; what a pass over the images leaves over fills no batch."""
    own = partial(_own_draws, num_images, batch_size, seed, rank(), world_size())
    updates, count = range(first, total), len(own(first))  # which is the same for all updates
    loaded = load_in_order(partial(_read_own, read, own), updates if count else (), count * image_bytes, workers, device)
    for _ in updates:
        share = None
        if count:
            images, targets = next(loaded)
            maps = extract(images)
            share = _on_cpu(maps) if world_size() > 1 else maps, targets
        yield _joined([found for found in gather_objects(share) if found is not None], device)


def _own_draws(num_images: int, batch_size: int, seed: int, number: int, processes: int, update: int) -> list[Draw]:
    """What one of so many processes reads for an update."""
    passed, place = divmod(update, max(1, num_images // batch_size))
    batch = _order(num_images, seed_of(seed, passed))[place * batch_size : (place + 1) * batch_size]
    return [(passed, index) for index in batch.tensor_split(processes)[number].tolist()]


@lru_cache(maxsize=1)
def _order(num_images: int, seed: int) -> Tensor:
    """The images of a pass, in a process that reads them: nobody holds the draws of a whole training."""
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))


def _read_own(read: ReadBatch, own: Callable[[int], list[Draw]], update: int) -> tuple[Tensor, Tensor]:
    return read(own(update))


def _on_cpu(maps: Maps) -> Maps:
    """Another process cannot take what is on this one's GPU. A map of several layers stays one, which is then sent once."""
    moved = {id(found): found.cpu() for listed in maps.values() for found in listed}
    return {layer: [moved[id(found)] for found in listed] for layer, listed in maps.items()}


def _joined(shares: Sequence[tuple[Maps, Tensor]], device: torch.device) -> tuple[Maps, Tensor]:
    maps, targets = zip(*shares, strict=True)
    joined = {
        layer: [
            torch.cat([found.to(device) for found in parts]) for parts in zip(*(share[layer] for share in maps), strict=True)
        ]
        for layer in maps[0]
    }
    return joined, torch.cat([part.to(device) for part in targets])
