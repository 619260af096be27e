"""Multi-crop input: PatchBench beside DINO's augmentation as torchvision and Pillow do it, on the same photographs.

    python -m benchmarks.views --photos DIR [--images 200 --rounds 5]

Both make two views of 224 and eight of 96 pixels of every photograph, with DINO's colour jitter, greyscale, blur and
solarisation, and end at batches of normalised float32 tensors. The plain pipeline is written from facebookresearch/dino 7c446df,
DataAugmentationDINO, with the crops' scales of SelfPatch: torchvision's transforms on Pillow's images. The two take turns in one
process with one thread, and parts of them after that. Seconds are the process's own on the processor, so that other work counts
little; speeds are medians over the rounds, ratios medians of each round's own.
"""

import functools
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

from common.command import parse_config, run_command
from pretrain.config import ViewsConfig
from pretrain.data.decoding import Picture, decode_whole, resized_crop
from pretrain.data.delivery import network_inputs
from pretrain.data.draws import draw_views
from pretrain.data.images import ImageFiles, images_of_folder
from pretrain.data.loader import Collate, ImageKey, MultiCropImages
from pretrain.data.views import IMAGENET_DEVIATION, IMAGENET_MEAN, view_kinds

_CPU = torch.device("cpu")
_BATCH = 32
_KINDS = view_kinds(ViewsConfig())
_BICUBIC = T.InterpolationMode.BICUBIC


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure how many photographs a second one core turns into views."""

    photos: Path
    """Folder of photographs, at any depth."""
    images: int = 200
    """Photographs per turn, evenly from the whole folder."""
    rounds: int = 5
    """Turns of each."""


class PlainBlur:
    """DINO's: Pillow's filter with a drawn radius."""

    def __init__(self, probability: float) -> None:
        """Store how often it acts."""
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur, or not."""
        if random.random() > self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class PlainSolarise:
    """DINO's: Pillow's operation."""

    def __init__(self, probability: float) -> None:
        """Store how often it acts."""
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        """Solarise, or not."""
        return ImageOps.solarize(image) if random.random() < self.probability else image


def plain_transforms() -> list[T.Compose]:
    """One per view, in order."""

    def transform(size: int, scale: tuple[float, float], *others: Callable[[Image.Image], Image.Image]) -> T.Compose:
        colours = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8), T.RandomGrayscale(0.2)]
        crop = [T.RandomResizedCrop(size, scale, interpolation=_BICUBIC), T.RandomHorizontalFlip(0.5)]
        return T.Compose([*crop, *colours, *others, T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION)])

    local = transform(96, (0.05, 0.25), PlainBlur(0.5))
    first = transform(224, (0.25, 1.0), PlainBlur(1.0))
    return [first, transform(224, (0.25, 1.0), PlainBlur(0.1), PlainSolarise(0.2)), *[local] * 8]


Turn = Callable[[Sequence[int]], object]
"""Something done to the photographs of these numbers."""


def whole(source: ImageFiles) -> dict[str, Turn]:
    """From files to networks' inputs, as both pipelines do it; and the part of it that workers do where a GPU does the rest."""
    transforms, paths = plain_transforms(), [Path(source.describe(index)) for index in range(len(source.names))]
    all_here, geometry = (MultiCropImages(source, _KINDS, seed=0, colours=colours) for colours in (True, False))

    def plain(images: Sequence[int]) -> None:
        for start in range(0, len(images), _BATCH):
            photographs = [_open(paths[index]) for index in images[start : start + _BATCH]]
            samples = [[transform(photograph) for transform in transforms] for photograph in photographs]
            [torch.stack(crops) for crops in zip(*samples, strict=True)]

    def ours(images: Sequence[int]) -> None:
        for start in range(0, len(images), _BATCH):
            samples = [all_here[ImageKey(0, index)] for index in images[start : start + _BATCH]]
            network_inputs(Collate(colours=True)(samples), _CPU)

    def workers(dataset: MultiCropImages, images: Sequence[int]) -> None:
        for start in range(0, len(images), _BATCH):
            Collate(colours=dataset.colours)([dataset[ImageKey(0, index)] for index in images[start : start + _BATCH]])

    return {
        "plain": plain,
        "PatchBench": ours,
        "PatchBench's workers: bytes, normalised on the device": functools.partial(workers, all_here),
        "PatchBench's workers with views.on_device": functools.partial(workers, geometry),
    }


def _open(path: Path) -> Image.Image:
    with path.open("rb") as stream:
        return Image.open(stream).convert("RGB")


def parts(source: ImageFiles, images: Sequence[int]) -> dict[str, dict[str, Turn]]:
    """Decoding alone, and the ten crops of decoded photographs alone."""
    pictures = {index: decode_whole(source.load(index)) for index in images}
    decoded = {index: Image.fromarray(pixels) for index, pixels in pictures.items()}
    draws = {
        index: draw_views(_KINDS, image.width, image.height, np.random.default_rng(index)) for index, image in decoded.items()
    }

    def plain_crops(images: Sequence[int]) -> None:
        for index in images:
            for kind, (top, left, height, width) in zip(_KINDS, draws[index].boxes_V4.tolist(), strict=True):
                cut = decoded[index].crop((left, top, left + width, top + height))
                cut.resize((kind.size, kind.size), Image.Resampling.BICUBIC)

    def our_crops(images: Sequence[int]) -> None:
        for index in images:
            for kind, box in zip(_KINDS, draws[index].boxes_V4, strict=True):
                resized_crop(Picture(pictures[index]), box, kind.size)

    return {
        "decoding": {
            "plain": lambda images: [_open(Path(source.describe(index))) for index in images],
            "PatchBench": lambda images: [decode_whole(source.load(index)) for index in images],
        },
        "ten crops of a decoded photograph": {"plain": plain_crops, "PatchBench": our_crops},
    }


def take_turns(turns: dict[str, Turn], images: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Images per second of processor time, per round; the first turn of each is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            start = time.process_time()
            turn(images)
            if number:
                speeds[name].append(len(images) / (time.process_time() - start))
    return speeds


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table.

    Raises:
        ValueError: If there is no photograph.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    source = images_of_folder(config.photos)
    every = np.linspace(0, len(source.names), min(config.images, len(source.names)), endpoint=False)
    images = every.astype(int).tolist()
    pixels = [decode_whole(source.load(index)).shape[:2] for index in images]
    print(f"{len(images)} photographs of {config.photos}, on average {np.prod(pixels, axis=1).mean() / 1e6:.3f} megapixels")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
    )
    print(f"{torch.backends.cpu.get_cpu_capability()}, one thread, {config.rounds} rounds\n")
    print("| | | images/s of one core | times the plain one |")
    print("| --- | --- | --- | --- |")
    for part, turns in {"all": whole(source), **parts(source, images)}.items():
        speeds = take_turns(turns, images, config.rounds)
        for name, values in speeds.items():
            ratio = statistics.median(ours / plain for ours, plain in zip(values, speeds["plain"], strict=True))
            print(f"| {part} | {name} | {statistics.median(values):.1f} | {ratio:.2f} |", flush=True)


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.views", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
