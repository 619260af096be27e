"""Multi-crop input: PatchBench beside DINO's augmentation as torchvision and Pillow do it, on the same images.

    python -m benchmarks.views --photos DIR [--images 200 --rounds 5]

Both make two views of 224 and eight of 96 pixels of every image, with DINO's colour jitter, greyscale, blur and solarisation, and end
at batches of normalised float32 tensors. The plain pipeline is written from facebookresearch/dino 7c446df, DataAugmentationDINO, with
the crops' scales of SelfPatch: torchvision's transforms on Pillow's images. They take turns in one process with one thread. Seconds
are the process's own on the processor; speeds are medians over the rounds, ratios medians of each round's own.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T

from benchmarks.turns import ratio, table
from common.cli import parse, run_command
from common.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain.config import ViewsConfig
from pretrain.data.loader import Batch, ImageKey, MultiCropImages, collate, network_inputs
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.data.views import decode_whole, view_kinds

_CPU = torch.device("cpu")
_BATCH = 32
_KINDS = view_kinds(ViewsConfig())

Turn = Callable[[Sequence[int]], object]
"""Something done to the images of these numbers."""


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


def turns(source: ImageFiles) -> dict[str, Turn]:
    """From files to networks' inputs, as both pipelines do it; and the part of it that workers do where a GPU does the rest."""
    transforms = plain_transforms()
    all_here, geometry = (MultiCropImages(source, _KINDS, seed=0, colours=colours) for colours in (True, False))

    def batches(images: Sequence[int], make: Callable[[Sequence[int]], object]) -> None:
        for start in range(0, len(images), _BATCH):
            make(images[start : start + _BATCH])

    def plain(some: Sequence[int]) -> object:
        opened = [_open(source, index) for index in some]
        samples = [[transform(image) for transform in transforms] for image in opened]
        return [torch.stack(crops) for crops in zip(*samples, strict=True)]

    def workers(dataset: MultiCropImages, some: Sequence[int]) -> Batch:
        return collate([dataset[ImageKey(0, index)] for index in some], colours=dataset.colours)

    return {
        "plain": lambda images: batches(images, plain),
        "PatchBench": lambda images: batches(images, lambda some: network_inputs(workers(all_here, some), _CPU)),
        "PatchBench's workers: bytes, normalised on the device": lambda images: batches(
            images, lambda some: workers(all_here, some)
        ),
        "PatchBench's workers with views.on_device": lambda images: batches(images, lambda some: workers(geometry, some)),
    }


def _open(source: ImageFiles, index: int) -> Image.Image:
    with Path(source.describe(index)).open("rb") as stream:
        return Image.open(stream).convert("RGB")


def seconds_of(turns: dict[str, Turn], images: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Processor time per round; the first turn of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds + 1):
        for name, turn in turns.items():
            start = time.process_time()
            turn(images)
            seconds[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in seconds.items()}


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table.

    Raises:
        ValueError: If there is no image.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    source = images_of_folder(config.photos, "photos")
    every = np.linspace(0, len(source.names), min(config.images, len(source.names)), endpoint=False)
    images = every.astype(int).tolist()
    sizes = [decode_whole(source.load(index)).shape[:2] for index in images]
    print(f"{len(images)} images of {config.photos}, on average {np.prod(sizes, axis=1).mean() / 1e6:.3f} megapixels")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
    )
    print(f"{torch.backends.cpu.get_cpu_capability()}, one thread, {config.rounds} rounds\n")
    rows = []
    seconds = seconds_of(turns(source), images, config.rounds)
    for name, values in seconds.items():
        speed = statistics.median(len(images) / value for value in values)
        rows.append([name, f"{speed:.1f}", f"{ratio(seconds['plain'], values):.2f}"])
    table(" | images/s of one core | times the plain one", rows)


def main(argv: Sequence[str]) -> int:
    benchmark(parse(BenchmarkConfig, argv, "python -m benchmarks.views"))
    return 0


if __name__ == "__main__":
    run_command(main)
