"""How images are loaded: damaged files are errors that name them, and augmentation depends on nothing but seed and place.

Generators that run on from image to image tie an augmentation to the process that happens to load the image and to all that this
process loaded before: another number of workers or processes, or an interruption, then changes the run. Here the sampler hands out
places in the order of training instead of plain indices, and the dataset seeds the generators by them.
"""

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from common.images import breaks_off

Purpose = Literal["loading", "computing"]


class ImageFileError(ValueError):
    """A file that cannot be read as the image that it should be."""

    def __init__(self, message: str) -> None:
        """Keep the last line: from a worker process, PyTorch hands over the whole traceback as the message."""
        kind = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.strip().splitlines()[-1].removeprefix(kind))


@TRANSFORMS.register_module()
class ReadImage(BaseTransform):
    """mmcv's `LoadImageFromFile` with its defaults: 8-bit BGR by OpenCV, which fills the missing part of a JPEG with grey.

    Unlike there, the EXIF orientation is ignored: annotations are on the pixels as they are stored.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `img` and its sizes; `results` has `img_path`, and `height` and `width` where annotations state them."""
        path = results["img_path"]
        content = Path(path).read_bytes()
        if breaks_off(content):
            raise ImageFileError(f"{path}: the JPEG breaks off after {len(content)} bytes; copy it again")
        image = mmcv.imfrombytes(content, flag="color_ignore_orientation", backend="cv2") if content else None
        if image is None:
            raise ImageFileError(f"{path}: not a readable image ({len(content)} bytes); copy it again")
        size = image.shape[:2]
        # As Detectron2 does: annotations of another size would be drawn in the wrong places.
        if (stated := (results.get("height", size[0]), results.get("width", size[1]))) != size:
            raise ImageFileError(
                f"{path}: {size[1]} x {size[0]} pixels, but {stated[1]} x {stated[0]} by the annotations; take the original"
            )
        return {**results, "img": image, "img_shape": size, "ori_shape": size}


class Place(NamedTuple):
    """A place in the order of training: an image's index in the dataset, and a 0-based position over all processes and epochs."""

    image: int
    position: int


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

    It does so in the training process too, where images are loaded without workers: what else is random there has a seed of its own
    (`eval.openmmlab.runner.SeedByIterationHook`).
    """

    def __init__(self, dataset: dict[str, Any], seed: int) -> None:
        self._dataset = DATASETS.build(dataset)
        self._seed = seed

    @property
    def metainfo(self) -> dict[str, Any]:
        return dict(self._dataset.metainfo)

    def full_init(self) -> None:
        """Read the annotations, before worker processes share them."""
        self._dataset.full_init()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, place: Place) -> Any:
        seed_generators(self._seed, "loading", place.position)
        return self._dataset[place.image]


def seed_generators(seed: int, purpose: Purpose, *counters: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators of this process, each differently.

    The same counters (at least 0, equally many for all seeds of a purpose) give other numbers for another purpose.
    """
    entropy = [seed, get_args(Purpose).index(purpose), *counters]
    for_python, for_numpy, for_torch = (int(word) for word in np.random.SeedSequence(entropy).generate_state(3))
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)
