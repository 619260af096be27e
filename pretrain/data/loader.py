"""Batches of views, in an order and with contents that depend on (seed, epoch, image), not on workers, processes or restarts."""

import functools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from common.cli import leave_stopping_to_parent
from common.distributed import local_rank, queued
from common.images import IMAGENET_MEAN, IMAGENET_STD
from common.launch import loader_processes
from pretrain.config import DataConfig, TrainConfig, ViewsConfig
from pretrain.data.colours import ColourDraws, change_batch_colours
from pretrain.data.sources import ImageFiles
from pretrain.data.views import Planes, ViewDraws, make_views, view_kinds

_ORDER_STREAM, _VIEW_STREAM, _SHARED_STREAM = 0, 1, 2  # keep random numbers for different ends apart

logger = logging.getLogger(__name__)


class ImageKey(NamedTuple):
    """What determines the views of an image, together with the run's seed."""

    epoch: int
    image: int
    group: int = -1  # all images of a group share their draws in this epoch; with -1 an image has its own


# The views of an image, what was drawn for them, and the unreadable files that were met on the way: path -> reason.
Sample = tuple[list[Planes], ViewDraws, dict[str, str]]


class Batch(NamedTuple):
    """The views of a process's share of a global batch, global ones first; `network_inputs` makes of them what networks take."""

    crops: list[Tensor]  # of each view: uint8 RGB [B, 3, size, size]
    boxes: list[Tensor]  # of each view: int64 [B, 5], a `CropBox` for each image
    colours: list[ColourDraws]  # of each view: the changes still to be done; none where the workers have done them
    failures: dict[str, str]


class MultiCropImages(Dataset[Sample]):
    """Views by `ImageKey`; an unreadable image is replaced by the next readable one of the data set."""

    def __init__(self, source: ImageFiles, views: ViewsConfig, seed: int) -> None:
        self.source, self.kinds, self.seed, self.colours = source, view_kinds(views), seed, not views.on_device

    def __getitem__(self, key: ImageKey) -> Sample:
        epoch, index, group = key
        stream, number = (_VIEW_STREAM, index) if group < 0 else (_SHARED_STREAM, group)
        images = len(self.source.names)
        failures: dict[str, str] = {}
        for place in (*range(index, images), *range(index)):
            rng = np.random.default_rng((stream, self.seed, epoch, number))
            try:
                views = make_views(self.source.load(place), self.kinds, rng, shared=group >= 0, colours=self.colours)
            except OSError as error:
                failures[self.source.describe(place)] = str(error)
            else:
                return (*views, failures)
        raise ValueError(f"none of the {images} images can be read; the first is {self.source.describe(0)}")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        pixels, draws, failures = zip(*samples, strict=True)
        boxes_VB5 = torch.from_numpy(np.stack([drawn.boxes_V5 for drawn in draws], axis=1))
        colours_VB = [np.stack(values, axis=1) for values in zip(*(drawn.colours for drawn in draws), strict=True)]
        return Batch(
            crops=[torch.from_numpy(np.stack(crops)) for crops in zip(*pixels, strict=True)],
            boxes=list(boxes_VB5.contiguous()),
            colours=[] if self.colours else [ColourDraws(*values) for values in zip(*colours_VB, strict=True)],
            failures={path: reason for met in failures for path, reason in met.items()},
        )


class GlobalBatchSampler(Sampler[list[ImageKey]]):
    """A process's shares of the run's global batches: every world_size-th image, so that any number of processes has the same.

    Every epoch is a fresh permutation of all images, cut into whole global batches; the remainder is left out.
    """

    def __init__(self, images: int, train: TrainConfig, rank: int, world_size: int, shared_by: int = 0) -> None:
        """Consecutive images of a batch, `shared_by` at a time, share their draws, as the PW-Self authors' images of one GPU do."""
        batch_size, accumulate = train.batch_size, train.accumulate
        if batch_size % (world_size * accumulate):
            parts = f"{world_size} processes times train.accumulate={accumulate}"
            raise ValueError(f"train.batch_size={batch_size} (of all devices) is not a multiple of the {parts}")
        if images < batch_size:
            raise ValueError(f"{images} images are fewer than one batch of train.batch_size={batch_size}")
        self.images, self.batch_size, self.seed = images, batch_size, train.seed
        self.rank, self.world_size, self.shared_by = rank, world_size, shared_by
        self.steps_per_epoch = images // batch_size
        self.next_step = self.last_step = 0
        self._order_epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def plan(self, next_step: int, last_step: int) -> None:
        """Yield the batches of steps `next_step` to `last_step` - 1 of the run."""
        self.next_step, self.last_step = next_step, last_step

    def __iter__(self) -> Iterator[list[ImageKey]]:
        for step in range(self.next_step, self.last_step):
            epoch, position = divmod(step, self.steps_per_epoch)
            keys = [ImageKey(epoch, image) for image in self.global_batch(step)]
            if self.shared_by:
                first = position * math.ceil(self.batch_size / self.shared_by)
                keys = [key._replace(group=first + place // self.shared_by) for place, key in enumerate(keys)]
            yield keys[self.rank :: self.world_size]

    def global_batch(self, step: int) -> list[int]:
        """The images of a step over all processes, in their order; `step` counts the steps done before."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order = np.random.default_rng((_ORDER_STREAM, self.seed, epoch)).permutation(self.images)
            self._order_epoch = epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size].tolist()


def build_loader(
    dataset: MultiCropImages, sampler: GlobalBatchSampler, config: DataConfig, pin_memory: bool
) -> "DataLoader[Sample]":
    """A loader of the sampler's batches, a `Batch` each, in pinned memory where they go to a GPU."""
    cores = worker_cores(config.workers) if config.pin_workers else None
    share = sampler.batch_size // sampler.world_size
    batch_bytes = share * sum(3 * kind.size**2 for kind in dataset.kinds)
    workers = loader_processes(config.workers, batch_bytes, "--data.workers")
    if workers < config.workers:
        logger.info("%d workers, as many as there are cores, instead of data.workers=%d", workers, config.workers)
    set_up, collate = functools.partial(set_up_worker, cores), dataset.collate
    return DataLoader(
        dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate, pin_memory=pin_memory, worker_init_fn=set_up
    )


def set_up_worker(cores: Sequence[int] | None, worker: int) -> None:
    """Give a worker one thread of OpenCV, as it has of torch, and its own core, if any; signals are the parent's."""
    leave_stopping_to_parent()
    cv2.setNumThreads(0)
    if cores is not None:
        os.sched_setaffinity(0, {cores[worker]})


def worker_cores(workers: int) -> list[int]:
    """The cores of a process's workers; the processes of one machine take different ones."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("data.pin_workers: this system cannot keep processes to cores; leave it out")
    cores = sorted(os.sched_getaffinity(0))
    wanted, first = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * workers, local_rank() * workers
    if wanted > len(cores):
        raise ValueError(f"data.pin_workers: {wanted} workers on this machine and {len(cores)} cores; lower data.workers")
    return cores[first : first + workers]


def report_unreadable(failures: dict[str, str], known: set[str], limit: int) -> None:
    """Name the files of a batch that cannot be decoded, each once; a ValueError if more than `limit` distinct ones are known now."""
    for path, reason in failures.items():
        if path not in known:
            known.add(path)
            logger.warning("skipping the unreadable image %s: %s", path, reason)
    if len(known) > limit:
        found = f"{len(known)} unreadable images, more than data.max_unreadable={limit}; the last is {max(known)}"
        raise ValueError(f"{found}; repair or remove them, or raise the limit")


def network_inputs(batch: Batch, device: torch.device) -> list[Tensor]:
    """Move crops to a device, as bytes, change colours that no worker has changed, and normalise: float32 [B, 3, S, S] per view."""
    mean, deviation = queued(255 * torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[..., None, None], device)
    inputs = []
    for view, crops in enumerate(batch.crops):
        levels = crops.to(device, non_blocking=True).float()
        if batch.colours:
            change_batch_colours(levels, batch.colours[view])
        inputs.append(levels.sub_(mean).div_(deviation))
    return inputs
