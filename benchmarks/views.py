"""Multi-crop input: PatchBench beside DINO's augmentation as torchvision and Pillow do it, on the same images.

    python -m benchmarks.views --photos DIR [--images 200 --rounds 5]

Both make two views of 224 and eight of 96 pixels of every image, with DINO's colour jitter, greyscale, blur and solarisation, and end
at batches of normalised float32 tensors. The plain pipeline is written from facebookresearch/dino 7c446df, DataAugmentationDINO, with
the crops' scales of SelfPatch: torchvision's transforms on Pillow's images. They take turns in one process with one thread. Seconds
are the process's on the processor; speeds are medians over the rounds, ratios medians of each round's own.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T

from benchmarks.turns import ratio, run, table
from common.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain.config import ViewsConfig
from pretrain.data.loader import ImageKey, MultiCropImages, collate, network_inputs
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.data.views import decode_whole, view_kinds

_CPU = torch.device("cpu")
_BATCH = 32
_KINDS = view_kinds(ViewsConfig())
PARTS = (
    "plain",
    "PatchBench",
    "PatchBench's workers: bytes, normalised on the device",
    "PatchBench's workers with views.on_device",
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure how many images a second one core turns into views."""

    photos: Path
    """Folder of images, at any depth."""
    images: int = 200
    """Images per turn, evenly from the whole folder."""
    rounds: int = 5
    """Turns of each."""


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def plain_transforms() -> list[T.Compose]:
    """One per view, in order."""

    def transform(size: int, scale: tuple[float, float], blurred: float, solarised: float) -> T.Compose:
        return T.Compose(
            [
                T.RandomResizedCrop(size, scale, interpolation=T.InterpolationMode.BICUBIC),
                T.RandomHorizontalFlip(0.5),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                T.RandomGrayscale(0.2),
                T.RandomApply([blur], p=blurred),
                T.RandomApply([ImageOps.solarize], p=solarised),
                T.ToTensor(),
                T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    return [transform(kind.size, kind.scale, kind.blur_probability, kind.solarise_probability) for kind in _KINDS]


def make_batch(part: str, source: ImageFiles, transforms: Sequence[T.Compose], images: Sequence[int]) -> object:
    """From files to networks' inputs, as both pipelines do it; or the part of it that workers do where a GPU does the rest."""
    if part == "plain":
        opened = [Image.open(source.describe(index)).convert("RGB") for index in images]
        samples = [[transform(image) for transform in transforms] for image in opened]
        return [torch.stack(crops) for crops in zip(*samples, strict=True)]
    dataset = MultiCropImages(source, _KINDS, seed=0, colours=part != PARTS[3])
    batch = collate([dataset[ImageKey(0, index)] for index in images], colours=dataset.colours)
    return network_inputs(batch, _CPU) if part == PARTS[1] else batch


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    source, transforms = images_of_folder(config.photos, "photos"), plain_transforms()
    every = np.linspace(0, len(source.names), min(config.images, len(source.names)), endpoint=False)
    images = every.astype(int).tolist()
    sizes = [decode_whole(source.load(index)).shape[:2] for index in images]
    print(f"{len(images)} images of {config.photos}, on average {np.prod(sizes, axis=1).mean() / 1e6:.3f} megapixels")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
    )
    print(f"{torch.backends.cpu.get_cpu_capability()}, one thread, {config.rounds} rounds\n")
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(config.rounds + 1):
        for part in PARTS:
            start = time.process_time()
            for first in range(0, len(images), _BATCH):
                make_batch(part, source, transforms, images[first : first + _BATCH])
            if number:  # the first round is not counted
                seconds[part].append(time.process_time() - start)
    rows = []
    for part, taken in seconds.items():
        speed = median(len(images) / one for one in taken)
        rows.append([part, f"{speed:.1f}", f"{ratio(seconds['plain'], taken):.2f}"])
    table(("", "images/s of one core", "times the plain one"), rows)


if __name__ == "__main__":
    run("views", BenchmarkConfig, benchmark)
