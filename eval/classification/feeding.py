"""The linear probe's batches: of freshly augmented images, as published, or of stored features.

Shapes: B images of a batch over all processes, L features.

The order of the images depends on seed and epoch only, so any number of processes sees the same batches: each makes the features of
its part, and all of them get the whole batch and take the same step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from eval.classification.extraction import load_batches
from eval.classification.images import LabelledImages
from eval.classification.representation import LINEAR, FeatureExtractor
from eval.classification.store import FeatureStore
from eval.classification.transforms import RandomCropAndFlip
from eval.processes import Process


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Order [N] of the training images in an epoch."""
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return torch.randperm(num_images, generator=generator)


@dataclass(frozen=True, kw_only=True)
class AugmentedFeatures:
    """Every epoch draws a random crop and flip of each image and sends it through the backbone: the published protocol."""

    images: LabelledImages
    """Training images."""
    extractor: FeatureExtractor
    """The backbone."""
    width: int
    """L."""
    crop: int
    """Side of the network's input in pixels."""
    batch_size: int
    """B."""
    workers: int
    """Processes that decode, per process."""
    seed: int
    """Of order and crops."""
    process: Process
    """This one, joined with the others."""

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `eval.classification.linear.FeatureBatches`."""
        batches = epoch_order(len(self.images), self.seed, epoch).split(self.batch_size)
        own = [batch.tensor_split(self.process.world_size)[self.process.rank] for batch in batches]
        device = self.extractor.device
        transform = RandomCropAndFlip(crop=self.crop, seed=self.seed, epoch=epoch)
        wanted = [part.tolist() for part in own if len(part)]
        loaded = load_batches(self.images, transform, wanted, self.workers, device.type == "cuda")
        labels = torch.from_numpy(self.images.labels)
        bar = tqdm(
            list(zip(batches, own, strict=True)),
            unit="batch",
            desc=f"epoch {epoch + 1}",
            disable=None if self.process.rank == 0 else True,
            leave=False,
        )
        for batch, part in bar:
            features_bL = torch.empty((0, self.width))
            if len(part):
                features_bL = self.extractor(next(loaded))[LINEAR].cpu()
            features_BL = _gather(features_bL, len(batch), self.process)
            # Cloned outside of inference mode, so that a layer's backward pass may keep it.
            yield features_BL.clone().to(device), labels[batch].to(device)


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """Batches of features that were extracted once, from the centre crops: a deviation, by far faster."""

    store: FeatureStore
    """One row per image."""
    images: LabelledImages
    """Their labels."""
    batch_size: int
    """B."""
    seed: int
    """Of the order."""
    device: torch.device
    """Where the batches go."""

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `eval.classification.linear.FeatureBatches`."""
        labels = torch.from_numpy(self.images.labels)
        for batch in epoch_order(len(self.images), self.seed, epoch).split(self.batch_size):
            yield self.store.rows(batch).to(self.device), labels[batch].to(self.device)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same in the images' own order, for testing."""
        labels = torch.from_numpy(self.images.labels)
        for first, rows in self.store.blocks(1):
            yield rows.to(self.device), labels[first : first + len(rows)].to(self.device)


def _gather(features_bL: Tensor, total: int, process: Process) -> Tensor:
    """The batch [B, L] from every process's part, in the processes' order; on the CPU."""
    if process.world_size == 1:
        return features_bL
    sizes = [len(part) for part in torch.empty(total).tensor_split(process.world_size)]
    padded_bL = torch.zeros((max(sizes), features_bL.shape[1]))
    padded_bL[: len(features_bL)] = features_bL
    parts = [torch.empty_like(padded_bL) for _ in sizes]
    dist.all_gather(parts, padded_bL)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
