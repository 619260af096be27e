"""Batches of views, in an order and with contents that depend on (seed, epoch, image) alone.

Neither the number of workers nor of processes nor a restart changes what an image looks like or which batch it is in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pretrain.data.batch_colours import stack_draws
from pretrain.data.draws import ColourDraws, ViewKind
from pretrain.data.source import ImageSource
from pretrain.data.views import Views, make_views, stack_boxes
from pretrain.data.workers import WorkerSetup

# Domains that keep the streams of random numbers apart.
_ORDER_STREAM, _VIEW_STREAM, _SHARED_STREAM = 0, 1, 2


class ImageKey(NamedTuple):
    """What determines the views of an image, with the run's seed."""

    epoch: int
    image: int
    """Its index."""
    group: int = -1
    """Of the images of this epoch that share all draws; -1 for draws of its own."""


@dataclass(frozen=True)
class Sample:
    """The views of one image."""

    views: Views
    failures: dict[str, str]
    """Unreadable files that were met on the way: path -> reason."""


@dataclass
class Batch:
    """The views of a process's share of a global batch."""

    crops: list[Tensor]
    """uint8 RGB [B, 3, size, size] per view, global ones first. `pretrain.data.delivery` makes of them what networks take."""
    boxes: list[Tensor]
    """int64 [B, 5] per view: top, left, height, width, flip, see `CropBox`."""
    colours: list[ColourDraws]
    """Per view, the changes of colours that are still to be done; empty where the workers have done them."""
    failures: dict[str, str]
    """Unreadable files that were met: path -> reason."""

    def pin_memory(self) -> "Batch":
        """Called by the loader: page-locked crops, for asynchronous copies to a GPU."""
        return replace(self, crops=[crop.pin_memory() for crop in self.crops])


class MultiCropImages(Dataset[Sample]):
    """Views by `ImageKey`; an unreadable image is replaced by the next readable one of the data set."""

    def __init__(self, source: ImageSource, kinds: Sequence[ViewKind], seed: int, *, colours: bool = True) -> None:
        """Store what to do.

        Args:
            source: The images.
            kinds: The views to make of each.
            seed: With epoch and index it determines the views.
            colours: Whether to change colours here, or leave them to the training process.
        """
        self.source = source
        self.kinds = kinds
        self.seed = seed
        self.colours = colours

    def __getitem__(self, key: ImageKey) -> Sample:
        """The views of one image.

        Args:
            key: Which image, and which draws.

        Raises:
            ValueError: If no image can be read.
        """
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
                return Sample(views, failures)
        raise ValueError(f"none of the {images} images can be read; the first is {self.source.describe(0)}")


class GlobalBatchSampler(Sampler[list[ImageKey]]):
    """A process's shares of the run's global batches, from a given step on.

    Every epoch is a fresh permutation of all images, cut into whole global batches (the remainder is left out). Each process
    takes every world_size-th image of a global batch, so that the batches are the same for any number of processes.
    """

    def __init__(self, images: int, batch_size: int, seed: int, rank: int, world_size: int, shared_by: int = 0) -> None:
        """Store the run's shape.

        Args:
            images: Number of images.
            batch_size: Images per global batch.
            seed: Determines all permutations.
            rank: This process.
            world_size: Number of processes.
            shared_by: How many consecutive images of a global batch share their draws; 0 for draws of each one's own. The PW-Self
                authors' images of one GPU do; here it does not depend on the processes.

        Raises:
            ValueError: If the batch does not divide by the processes, or there are fewer images than one batch.
        """
        if batch_size % world_size:
            raise ValueError(
                f"train.batch_size={batch_size} (over all devices) is not a multiple of the {world_size} processes"
            )
        if images < batch_size:
            raise ValueError(f"{images} images are fewer than one batch of train.batch_size={batch_size}")
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shared_by = shared_by
        self.steps_per_epoch = images // batch_size
        self.next_step = 0
        self.last_step = 0
        self._order_epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def plan(self, next_step: int, last_step: int) -> None:
        """Yield the batches of steps `next_step` to `last_step` - 1 of the run."""
        self.next_step, self.last_step = next_step, last_step

    def __len__(self) -> int:
        """Number of batches still to come."""
        return self.last_step - self.next_step

    def __iter__(self) -> Iterator[list[ImageKey]]:
        """The keys of each batch."""
        for step in range(self.next_step, self.last_step):
            epoch, position = divmod(step, self.steps_per_epoch)
            batch = self.global_batch(step)
            shares = range(self.rank, self.batch_size, self.world_size)
            yield [ImageKey(epoch, batch[place], self._group(position, place)) for place in shares]

    def global_batch(self, step: int) -> list[int]:
        """The images of a step over all processes, in their order.

        Args:
            step: Steps done before.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order = np.random.default_rng((_ORDER_STREAM, self.seed, epoch)).permutation(self.images)
            self._order_epoch = epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size].tolist()

    def _group(self, position: int, place: int) -> int:
        """The group of the image at a place of the epoch's batch at a position."""
        if not self.shared_by:
            return -1
        return position * -(-self.batch_size // self.shared_by) + place // self.shared_by


class Collate:
    """Stacks the views of several images."""

    def __init__(self, *, colours: bool) -> None:
        """Store what to send along.

        Args:
            colours: Whether the workers have changed colours; their draws travel with the batch otherwise.
        """
        self.colours = colours

    def __call__(self, samples: list[Sample]) -> Batch:
        """See `Batch`."""
        failures: dict[str, str] = {}
        for sample in samples:
            failures.update(sample.failures)
        pixels = zip(*(sample.views.pixels for sample in samples), strict=True)
        boxes = zip(*(sample.views.boxes for sample in samples), strict=True)
        draws = [sample.views.colours for sample in samples]
        views = len(samples[0].views.pixels)
        return Batch(
            crops=[torch.from_numpy(np.stack(crops)) for crops in pixels],
            boxes=[stack_boxes(list(view_boxes)) for view_boxes in boxes],
            colours=[] if self.colours else [stack_draws(draws, view) for view in range(views)],
            failures=failures,
        )


def build_loader(
    dataset: MultiCropImages, sampler: GlobalBatchSampler, workers: int, pin_memory: bool, cores: Sequence[int] | None = None
) -> DataLoader[Sample]:
    """A loader of `Batch`es over the sampler's plan.

    Args:
        dataset: Where views come from.
        sampler: Which images, in which order.
        workers: Processes; 0 for none.
        pin_memory: Whether batches go to a GPU.
        cores: What each worker keeps to; None to let the system decide.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(colours=dataset.colours),
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
        worker_init_fn=WorkerSetup(cores),
    )
