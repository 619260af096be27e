"""Weighted k-NN with the teacher's backbone during training: the quickest sign that features tell classes apart.

Shapes: N neighbours, T images to classify, D channels, S images of this process's share.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from backbones.build import AnyBackbone
from common.knn import classify
from common.neighbours import RowsInMemory, find_neighbours
from pretrain.data.views import read_image
from pretrain.distributed import gather_from_processes, rank, sum_over_processes, world_size
from pretrain.watching.labelled import LabelledImages, find_labelled, first_unreadable
from pretrain.watching.photographs import RESIZE_FACTOR, centre_crop, network_input
from pretrain.watching.undisturbed import undisturbed

logger = logging.getLogger(__name__)

NEIGHBOURS = 20
"""DINO's k of the published figures; fewer where there are fewer neighbours."""
TEMPERATURE = 0.07
"""As DINO's."""

_BATCH = 64
"""Images per forward pass: a part of what a training step needs."""


class OnlineKNN:
    """Classifies labelled images by their neighbours.

    All processes share the work and the waiting: each reads its part of the images, all exchange features, each classifies its part.
    So none waits for another longer than a few batches, whatever the time limit of the process group is.
    """

    def __init__(self, train: Path, val: Path, size: int, workers: int, device: torch.device) -> None:
        """List the images.

        Args:
            train: Folder of the neighbours, see `find_labelled`.
            val: Folder of the images to classify, of the same classes.
            size: Side of the network's input in pixels, that of the global crops.
            workers: How many images each process decodes at a time; at least one.
            device: Where to compute.

        Raises:
            ValueError: If a folder is not as it should be.
        """
        self._train, self._classes = find_labelled(train, "watch.knn_train")
        self._val, _ = find_labelled(val, "watch.knn_val", self._classes)
        self._size = size
        self._threads = max(1, workers)
        self._device = device

    def check(self) -> None:
        """Decode every image once, so that a damaged one is found before training and not after epochs of it.

        All processes must call it together, and take their parts.

        Raises:
            ValueError: If one cannot be decoded; on all processes.
        """
        for images, option in ((self._train, "watch.knn_train"), (self._val, "watch.knn_val")):
            if failure := _any_failure(first_unreadable(images.paths[rank() :: world_size()], self._threads)):
                raise ValueError(f"{option}: cannot read {failure}; repair or remove it")
        if rank() == 0:
            logger.info("k-NN: %d images of %d classes by %d neighbours", len(self._val), len(self._classes), len(self._train))

    def accuracy(self, backbone: AnyBackbone) -> float | None:
        """Top-1 accuracy in percent, the same on all processes; None, with a warning, if an image can no longer be read.

        The feature is the CLS token after the final norm, or the mean of all patches where there is none, as evaluation has it; in
        float32. All processes must call it together.

        Args:
            backbone: Left as it is.
        """
        with undisturbed(backbone):
            train_ND, val_TD = self._features(backbone, self._train), self._features(backbone, self._val)
        if train_ND is None or val_TD is None:
            return None
        own = torch.arange(rank(), len(self._val), world_size())
        hits = torch.zeros((), dtype=torch.float64, device=self._device)
        if len(own):
            k = min(NEIGHBOURS, len(self._train))
            neighbours = find_neighbours(val_TD[own], RowsInMemory(train_ND), k, self._device)
            ranks_S = classify(neighbours, self._train.labels_N, self._val.labels_N[own], [k], TEMPERATURE, len(self._classes))[
                k
            ]
            hits = (ranks_S == 0).sum().to(hits)
        (hits,) = sum_over_processes(hits)
        return 100 * float(hits) / len(self._val)

    def _features(self, backbone: AnyBackbone, images: LabelledImages) -> Tensor | None:
        """[N, D] of all images, float32 on the CPU; None if an image cannot be read."""
        share = images.paths[rank() :: world_size()]
        rows, failure = [], ""
        try:
            for batch_B3HW in self._batches(share):
                tokens = backbone.forward_tokens(batch_B3HW.to(self._device))
                rows.append((tokens.patches.mean(1) if tokens.cls is None else tokens.cls).float())
        except OSError as error:
            failure = str(error)
        if failure := _any_failure(failure):
            logger.warning("no k-NN this time: %s", failure)
            return None
        # All shares must be of one length to be exchanged; what is added lies behind the last image.
        length = -(-len(images) // world_size())
        width = backbone.map_channels([backbone.spec.num_blocks - 1])[0]
        padding = torch.zeros(length - len(share), width, device=self._device)
        return gather_from_processes(torch.cat([*rows, padding]))[: len(images)].cpu()

    def _batches(self, paths: list[Path]) -> Iterator[Tensor]:
        """Inputs [B, 3, H, W]."""

        def read(path: Path) -> Tensor:
            try:
                image = read_image(path)
            except OSError as error:
                raise OSError(f"{path}: {error}") from error
            return network_input(centre_crop(image, round(self._size * RESIZE_FACTOR), self._size))

        with ThreadPoolExecutor(self._threads) as pool:
            for first in range(0, len(paths), _BATCH):
                yield torch.stack(list(pool.map(read, paths[first : first + _BATCH])))


def _any_failure(failure: str) -> str:
    """The first process's failure of all that have one; empty if none has."""
    if world_size() == 1:
        return failure
    failures = [""] * world_size()
    dist.all_gather_object(failures, failure)
    return next(filter(None, failures), "")
