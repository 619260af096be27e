"""Augmentation that is a function of the seed and an image's place in the order of training, and of nothing else.

Generators that run on from image to image tie an augmentation to the process that happens to load the image and to all that this
process loaded before: another number of workers or processes, or an interruption, then changes the run. Here the sampler hands out
places instead of plain indices, and the dataset seeds the generators by them.
"""

import random
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset

Purpose = Literal["loading", "computing"]
"""What random numbers are for."""


@dataclass(frozen=True)
class Place:
    """A place in the order of training."""

    index: int
    """Of the image in the dataset."""
    position: int
    """0-based, over all processes and epochs."""


class MMDataset(Sized, Protocol):
    """What is needed of a dataset of mmdet or mmseg."""

    @property
    def metainfo(self) -> dict[str, Any]:
        """Such as the names of the classes."""

    def full_init(self) -> None:
        """Read the annotations."""

    def __getitem__(self, index: int) -> Any:
        """An image after its pipeline."""


@DATA_SAMPLERS.register_module()
class PlaceSampler(InfiniteSampler):
    """mmengine's InfiniteSampler, with the position beside every index: process r of n gets positions r, r + n, r + 2n and so on.

    Iterations then take the same images on any number of processes.
    """

    def _infinite_indices(self) -> Iterator[Place]:
        return map(Place, super()._infinite_indices(), count())


@DATASETS.register_module()
class SeededByPlace(Dataset[Any]):
    """A dataset that seeds Python's, NumPy's and PyTorch's generators from (seed, position) before it loads an image.

    In the training process too, where images are loaded without workers: what else is random there has a seed of its own
    (`eval.openmmlab.runner.SeedByIterationHook`).
    """

    def __init__(self, dataset: dict[str, Any], seed: int) -> None:
        """Build the dataset.

        Args:
            dataset: Config of the dataset whose images are loaded.
            seed: Of the run.
        """
        self._dataset: MMDataset = DATASETS.build(dataset)
        self._seed = seed

    @property
    def metainfo(self) -> dict[str, Any]:
        """The inner dataset's."""
        return self._dataset.metainfo

    def full_init(self) -> None:
        """Read the annotations, before worker processes share them."""
        self._dataset.full_init()

    def __len__(self) -> int:
        """Number of images."""
        return len(self._dataset)

    def __getitem__(self, place: Place) -> Any:
        """The image of a place, augmented as the place says."""
        seed_generators(self._seed, "loading", place.position)
        return self._dataset[place.index]


def seed_generators(seed: int, purpose: Purpose, *counters: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators of this process, each differently.

    Args:
        seed: Of the run.
        purpose: What the generators are for: the same counters give other numbers for another purpose.
        counters: Whole numbers of at least 0, such as a position or an iteration; equally many for all seeds of a purpose.
    """
    entropy = [seed, get_args(Purpose).index(purpose), *counters]
    for_python, for_numpy, for_torch = (int(word) for word in np.random.SeedSequence(entropy).generate_state(3))
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)
