"""Patches of labelled images on disk, their features and their pixels' labels, for what compares patches with each other.

Shapes: B images, N patches of an image, K of them stored, D channels, P pixels of a patch, S pixels of an input's side.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from common.distributed import rank, world_size
from eval.probes.cache import FeatureStore
from eval.probes.data import Split, read_image
from eval.probes.features import FrozenFeatures
from eval.probes.loading import load_in_order
from eval.progress import Progress

ROWS_AT_ONCE = 2**16

_FILE_BYTES = 1 << 26
_PIXEL_BYTES = 13  # of a pixel that a loader hands over: three float32 and a label


class View(Protocol):
    """How an image becomes a square input of a side of `size` pixels; a dataclass, whose fields name whatever changes it.

    There are `epochs` views of each image, numbered epoch by epoch, of which `kept` patches are stored each.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def size(self) -> int: ...

    @property
    def epochs(self) -> int: ...

    @property
    def kept(self) -> int: ...

    def __call__(self, image: Image.Image, labels_HW: npt.NDArray[np.uint8], number: int) -> tuple[Tensor, Tensor]:
        """Normalised image [3, S, S] and labels [S, S], uint8, of the view of this number; `labels_HW` are a file's."""

    def choose(self, pixels_NP: Tensor, number: int) -> Tensor:
        """The patches of a view that are stored [K]."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """The patches of the views of a split, row by row, each view's after the one before; `side` is that of the grid."""

    split: Split
    view: View
    side: int
    channels: int
    features: FeatureStore  # rows [D], float32
    pixels: FeatureStore  # rows [P], uint8

    @property
    def num_views(self) -> int:
        return len(self.split.pairs) * self.view.epochs

    def rows_of(self, views: Sequence[int]) -> Tensor:
        kept = self.view.kept
        return (torch.tensor(views)[:, None] * kept + torch.arange(kept)).flatten()

    @property
    def patch_bytes(self) -> int:
        """Bytes that the features and the pixels of one patch take."""
        return 4 * self.channels + (self.view.size // self.side) ** 2

    @property
    def stored_bytes(self) -> int:
        return self.features.num_rows * self.patch_bytes

    def chosen(self, labels_SS: Tensor, view: int) -> Tensor:
        """Which patches of a view are stored [K]."""
        return self.view.choose(patch_pixels(labels_SS[None], self.side)[0], view)

    def read_view(self, number: int) -> tuple[Tensor, Tensor]:
        """A view by its number, from the image's file; ValueError names a file that cannot be read."""
        image_path, label_path = list(self.split.pairs.values())[number % len(self.split.pairs)]
        image = read_image(image_path)
        return self.view(image, self.split.of.read_labels(label_path, image.size), number)


def open_patches(root: Path, split: Split, view: View, extract: FrozenFeatures, backbone_sha256: str, side: int) -> Patches:
    """The stores of a split's patches on a grid of `side` x `side`, whether they are filled or not."""
    channels = extract.channels[-1]
    rows = view.kept * view.epochs * len(split.pairs)
    rows_per_file = view.kept * max(1, _FILE_BYTES // (4 * channels * view.kept))
    inputs: dict[str, Any] = {
        "backbone": backbone_sha256,
        "images": split.content_sha256,
        "view": asdict(view),
        "side": side,
        "blocks": extract.blocks,
        "normalised": extract.normalised,
    }
    features = FeatureStore(root, {**inputs, "kind": "features"}, rows, (channels,), np.float32, rows_per_file)
    shape = ((view.size // side) ** 2,)
    pixels = FeatureStore(root, {**inputs, "kind": "pixels"}, rows, shape, np.uint8, rows_per_file)
    return Patches(split=split, view=view, side=side, channels=channels, features=features, pixels=pixels)


def patch_pixels(labels_BHW: Tensor, side: int) -> Tensor:
    """The pixels of each patch [B, N, P], the patches row by row; both sides of the maps are multiples of `side`, the grid's."""
    batch, height, width = labels_BHW.shape
    cells = labels_BHW.reshape(batch, side, height // side, side, width // side)
    return cells.transpose(2, 3).reshape(batch, side * side, -1)


def map_of_patches(pixels_NP: Tensor) -> Tensor:
    """The square map of labels whose patches have these pixels: the inverse of `patch_pixels`."""
    side, patch = (round(number**0.5) for number in pixels_NP.shape)
    return pixels_NP.reshape(side, side, patch, patch).transpose(1, 2).reshape(side * patch, side * patch)


def moments(store: FeatureStore, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [D] of rows of features, float64; the deviation is 1 where the features are all the same."""
    sum_D = squares_D = torch.zeros(1, dtype=torch.float64)
    for part in rows.split(ROWS_AT_ONCE):
        features_RD = store.rows(part).double()
        sum_D, squares_D = sum_D + features_RD.sum(0), squares_D + features_RD.square().sum(0)
    mean_D = sum_D / len(rows)
    deviation_D = (squares_D / len(rows) - mean_D**2).clamp(min=0).sqrt()
    return mean_D, torch.where(deviation_D > 0, deviation_D, 1)


def longest_vector(store: FeatureStore, mean_D: Tensor, deviation_D: Tensor) -> float:
    """A length that no feature vector of a store exceeds after it was scaled so."""
    parts = torch.arange(store.num_rows).split(ROWS_AT_ONCE)
    longest = max(float(((store.rows(part) - mean_D) / deviation_D).norm(dim=1).max()) for part in parts)
    return longest * (1 + 1e-6)  # what is computed from it is rounded


def fill_patches(patches: Patches, extract: FrozenFeatures, batch_size: int, workers: int) -> None:
    """Make the files that are not there; every process makes each world-size-th of them."""
    stores, kept = (patches.pixels, patches.features), patches.view.kept
    batches: dict[int, list[list[int]]] = {}  # by the number of the file
    for number, span in enumerate(patches.features.spans):
        if number % world_size() == rank() and not all(store.has(number) for store in stores):
            views = range(span.start // kept, span.stop // kept)
            batches[number] = [list(views[start : start + batch_size]) for start in range(0, len(views), batch_size)]
    own = [batch for listed in batches.values() for batch in listed]
    batch_bytes = max(map(len, own), default=0) * _PIXEL_BYTES * patches.view.size**2
    loaded = load_in_order(partial(read_views, patches), own, batch_bytes, workers, extract.device)
    total = sum(map(len, own))
    quiet = True if rank() or not total else None  # None: quiet where no terminal is
    with Progress(total=total, unit="image", desc=f"patches of {patches.split.name}", disable=quiet) as bar:
        for number, listed in batches.items():
            pixels, features = [], []
            for batch in listed:
                images_B3SS, labels_BSS = next(loaded)
                features_BND = extract(images_B3SS)[-1].flatten(2).transpose(1, 2).cpu()
                for view, features_ND, pixels_NP in zip(
                    batch, features_BND, patch_pixels(labels_BSS, patches.side), strict=True
                ):
                    chosen_K = patches.view.choose(pixels_NP, view)
                    pixels.append(pixels_NP[chosen_K])
                    features.append(features_ND[chosen_K])
                bar.update(len(batch))
            patches.pixels.write(number, torch.cat(pixels).numpy())
            patches.features.write(number, torch.cat(features).numpy())
    for store in stores:
        store.require_complete()


def read_views(patches: Patches, views: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images [B, 3, S, S] and labels [B, S, S] of views by their numbers."""
    images, labels = zip(*map(patches.read_view, views), strict=True)
    return torch.stack(images), torch.stack(labels)
