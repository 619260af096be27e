"""From labelled images to stored feature vectors, each image decoded once.

Shapes: B images, H x W pixels, D channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from eval.classification.images import ImageSource, LabelledImages
from eval.classification.representation import FeatureExtractor
from eval.classification.store import FeatureStore, Rows
from eval.classification.transforms import Transform
from eval.processes import Process, wait_for_all


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How images are decoded; changes no figure beyond rounding."""

    batch_size: int
    """Images per forward pass of the backbone."""
    workers: int
    """Processes that decode; 0: this one."""


class _TransformedImages(Dataset[Tensor | ValueError]):
    """Pictures as the network's input, for a DataLoader, which would bury an exception under its workers' tracebacks."""

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        self.source, self.transform = source, transform

    def __getitem__(self, index: int) -> Tensor | ValueError:
        try:
            return self.transform(self.source[index], index)
        except ValueError as error:
            return error


def _stack(items: Sequence[Tensor | ValueError]) -> Tensor | ValueError:
    images = [item for item in items if isinstance(item, Tensor)]
    return torch.stack(images) if len(images) == len(items) else next(item for item in items if isinstance(item, ValueError))


def load_batches(
    images: LabelledImages, transform: Transform, batches: Sequence[Sequence[int]], workers: int, pin_memory: bool
) -> Iterator[Tensor]:
    """Decode batches of images in the given order.

    Args:
        images: The split.
        transform: Makes the network's input.
        batches: Indices into the split; no batch is empty.
        workers: Processes that decode.
        pin_memory: For a quick copy to a GPU.

    Yields:
        [B, 3, H, W] for each batch.

    Raises:
        ValueError: If an image cannot be decoded; names it.
    """
    loader: DataLoader[Tensor | ValueError] = DataLoader(
        _TransformedImages(images.source, transform),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_stack,
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def extract(
    images: LabelledImages,
    transform: Transform,
    extractor: FeatureExtractor,
    stores: Mapping[str, FeatureStore],
    process: Process,
    options: LoadingOptions,
) -> None:
    """Fill the stores of one split; what is there already stays.

    Every process makes each world-size-th piece, so the pieces do not depend on the number of processes.

    Args:
        images: The split.
        transform: Makes the network's input.
        extractor: Gives the feature vectors.
        stores: Name of a feature vector -> where it goes; all for these images.
        process: This one, joined with the others.
        options: How to load.
    """
    missing = [store for store in stores.values() if not store.is_complete()]
    if not missing:
        return
    numbers = [
        number
        for number in range(missing[0].num_files)
        if number % process.world_size == process.rank and not all(store.has(number) for store in missing)
    ]
    spans = [missing[0].span(number) for number in numbers]
    batches = [span[start : start + options.batch_size] for span in spans for start in range(0, len(span), options.batch_size)]
    bar = tqdm(
        total=sum(map(len, batches)),
        unit="image",
        desc=f"features of {images.fingerprint.split}",
        disable=None if process.rank == 0 else True,
    )
    loaded = load_batches(images, transform, batches, options.workers, extractor.device.type == "cuda")
    for number, span in zip(numbers, spans, strict=True):
        parts: dict[str, list[Rows]] = {name: [] for name in stores}
        for _ in range(0, len(span), options.batch_size):
            images_B3HW = next(loaded)
            for name, features_BD in extractor(images_B3HW).items():
                if name in parts:
                    parts[name].append(features_BD.cpu().numpy())
            bar.update(len(images_B3HW))
        for name, store in stores.items():
            if not store.has(number):
                store.write(number, np.concatenate(parts[name]))
    bar.close()
    wait_for_all(process)
    if process.rank == 0:
        for store in missing:
            store.finish()
    wait_for_all(process)


def check_features(stores: Mapping[str, FeatureStore]) -> None:
    """Raise ValueError if a stored feature is not finite: comparisons with NaN would give figures that mean nothing."""
    for name, store in stores.items():
        for first, rows in store.blocks(1):
            if not torch.isfinite(rows).all():
                raise ValueError(f"{name} features from image {first} on are not finite; the backbone's weights are damaged")
