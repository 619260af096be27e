"""Multi-crop input: PatchBench beside DINO's augmentation as torchvision and Pillow do it, on the same images.

Both make two views of 224 and eight of 96 pixels of every image and end at batches of normalised float32 tensors. The plain pipeline
is written from facebookresearch/dino 7c446df, DataAugmentationDINO, with the crops' scales of SelfPatch. They take turns in one
process with one thread. Seconds are CPU time; speeds are medians over the rounds, ratios medians of each round's own.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T

from benchmarks.turns import Table, ratio, rounds, run
from common.images import IMAGENET_MEAN, IMAGENET_STD, evenly
from pretrain.config import ViewsConfig
from pretrain.data.loader import ImageKey, MultiCropImages, network_inputs
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.data.views import ViewKind, decode_whole, view_kinds

_BATCH = 32
IMAGES_PER_SECOND = "images/s of one core"
WORKERS = "PatchBench's workers: bytes, normalised on the device"
PARTS = (
    "plain",
    "PatchBench",
    WORKERS,
    "PatchBench's workers with views.on_device",
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure how many images a second a core turns into views."""

    photos: Path  # Folder of images, at any depth.
    images: int = 200  # Images per turn, evenly from the whole folder.
    rounds: int = 5  # Turns of each.


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def plain_transform(kind: ViewKind) -> T.Compose:
    return T.Compose(
        [
            T.RandomResizedCrop(kind.size, kind.scale, interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(0.5),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            T.RandomGrayscale(0.2),
            T.RandomApply([blur], p=kind.blur_probability),
            T.RandomApply([ImageOps.solarize], p=kind.solarise_probability),
            T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def make_batches(part: str, source: ImageFiles, images: Sequence[int]) -> None:
    """From files to networks' inputs, as both pipelines do it; or the part of it that workers do where a GPU does the rest."""
    transforms = [plain_transform(kind) for kind in view_kinds(ViewsConfig())]
    dataset = MultiCropImages(source, ViewsConfig(on_device=part == PARTS[3]), seed=0)
    for first in range(0, len(images), _BATCH):
        indices = images[first : first + _BATCH]
        if part == "plain":
            opened = [Image.open(source.describe(index)).convert("RGB") for index in indices]
            samples = [[transform(image) for transform in transforms] for image in opened]
            [torch.stack(crops) for crops in zip(*samples, strict=True)]
        else:
            batch = dataset.collate([dataset[ImageKey(0, index)] for index in indices])
            if part == "PatchBench":
                network_inputs(batch, torch.device("cpu"))


def benchmark(config: BenchmarkConfig, _folder: Path) -> Iterator[Table]:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    source = images_of_folder(config.photos, "photos")
    images = evenly(range(len(source.names)), config.images)
    sizes = [decode_whole(source.load(index)).shape[:2] for index in images]
    megapixels = np.prod(sizes, axis=1).mean() / 1e6
    versions = {"torch": torch, "torchvision": torchvision, "Pillow": PIL, "OpenCV": cv2}
    names = ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
    seconds, *_ = rounds({part: partial(make_batches, part, source, images) for part in PARTS}, config.rounds + 1)
    counted = {part: taken[1:] for part, taken in seconds.items()}  # the first round fills caches
    rows = [
        {"": part, IMAGES_PER_SECOND: len(images) / median(taken), "times the plain one": ratio(counted["plain"], taken)}
        for part, taken in counted.items()
    ]
    heading = (
        f"{len(images)} images, on average {megapixels:.3f} megapixels; {names}, {torch.backends.cpu.get_cpu_capability()}"
    )
    yield Table(heading, rows)


if __name__ == "__main__":
    run("views", BenchmarkConfig, benchmark)
