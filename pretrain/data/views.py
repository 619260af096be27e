"""Multi-crop: one photograph to two global and several local views that remember where they come from.

facebookresearch/dino 7c446df, DataAugmentationDINO. All random numbers come from a generator that the caller seeds, so that a view
is a function of (seed, epoch, image) whatever process makes it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pretrain.data.patch_photometric import change_each_patch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
GREY_PROBABILITY = 0.2
BLUR_RADIUS = (0.1, 2.0)
SOLARIZE_THRESHOLD = 128
ASPECT_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10


@dataclass(kw_only=True)
class ViewsConfig:
    """Sizes and scales of the crops."""

    global_size: int = 224
    """Side of the two global crops in pixels."""
    global_scale: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest area of a global crop, as a part of the image. DINO's own recipes use (0.4, 1)."""
    local_size: int = 96
    """Side of the local crops in pixels."""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest area of a local crop, as a part of the image. DINO's own recipes use (0.05, 0.4)."""
    local_crops: int = 8
    """Number of local crops."""
    shared_by: int = 0
    """How many images of a batch share all draws (boxes, flips, colours) after being resized to 256 x 256, as PW-Self's images of one
    GPU do; 0 for views of each image's own."""
    photometric_patch: int = 0
    """Side in pixels of patches that each change colours and sharpness by themselves (PW-Self's later branch); 0 for none."""

    def __post_init__(self) -> None:
        """Reject sizes and scales without meaning."""
        for name in ("global_scale", "local_scale"):
            smallest, largest = getattr(self, name)
            if not 0 < smallest <= largest <= 1:
                raise ValueError(f"views.{name}={getattr(self, name)} must be ascending within (0, 1]")
        if self.global_size < 1 or self.local_size < 1 or self.local_crops < 0:
            raise ValueError("views: sizes must be positive and local_crops not negative")
        if self.shared_by < 0 or self.photometric_patch < 0:
            raise ValueError("views.shared_by and views.photometric_patch must not be negative")
        sizes = [self.global_size, self.local_size] if self.local_crops else [self.global_size]
        if self.photometric_patch and any(size % self.photometric_patch for size in sizes):
            raise ValueError(f"views.photometric_patch={self.photometric_patch} does not divide the crops of {sizes} pixels")


class CropBox(NamedTuple):
    """Where a view was cut out, in pixels of the image, and whether it was mirrored afterwards."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


class View(NamedTuple):
    """One augmented crop."""

    pixels: Tensor
    """float32 [3, size, size], normalised with the ImageNet mean and deviation."""
    box: CropBox
    """Its geometry."""


@dataclass(frozen=True)
class ViewKind:
    """How views of one kind are made; see `view_kinds`."""

    size: int
    scale: tuple[float, float]
    blur_probability: float
    solarize_probability: float
    photometric_patch: int = 0


def view_kinds(config: ViewsConfig) -> list[ViewKind]:
    """The kinds of all views of an image, in order: global 1, global 2, local ones."""
    return [
        ViewKind(config.global_size, config.global_scale, 1.0, 0.0, config.photometric_patch),
        ViewKind(config.global_size, config.global_scale, 0.1, 0.2, config.photometric_patch),
        *[ViewKind(config.local_size, config.local_scale, 0.5, 0.0, config.photometric_patch)] * config.local_crops,
    ]


def make_views(image: Image.Image, kinds: list[ViewKind], rng: np.random.Generator) -> list[View]:
    """One view of each kind, drawn from the generator in order."""
    return [_make_view(image, kind, rng) for kind in kinds]


def sample_crop(width: int, height: int, scale: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) as torchvision's RandomResizedCrop does.

    Area uniform in `scale`, aspect ratio log-uniform in 3/4 to 4/3; after ten boxes that do not fit, the largest central box whose
    aspect ratio is allowed.
    """
    log_ratio = (math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1]))
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*log_ratio))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width, crop_height = width, height
    if width / height < ASPECT_RATIO[0]:
        crop_height = round(width / ASPECT_RATIO[0])
    elif width / height > ASPECT_RATIO[1]:
        crop_width = round(height * ASPECT_RATIO[1])
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _make_view(image: Image.Image, kind: ViewKind, rng: np.random.Generator) -> View:
    box = CropBox(*sample_crop(*image.size, kind.scale, rng), flip=bool(rng.random() < FLIP_PROBABILITY))
    view = F.resized_crop(image, *box[:4], [kind.size, kind.size], InterpolationMode.BICUBIC)
    if box.flip:
        view = F.hflip(view)
    if rng.random() < JITTER_PROBABILITY:
        view = _jitter(view, rng)
    if rng.random() < GREY_PROBABILITY:
        view = F.to_grayscale(view, num_output_channels=3)
    if rng.random() < kind.blur_probability:
        view = view.filter(ImageFilter.GaussianBlur(radius=rng.uniform(*BLUR_RADIUS)))
    if rng.random() < kind.solarize_probability:
        view = ImageOps.solarize(view, SOLARIZE_THRESHOLD)
    pixels = F.to_tensor(view)
    if kind.photometric_patch:
        pixels = change_each_patch(pixels, kind.photometric_patch, rng)
    pixels = F.normalize(pixels, list(IMAGENET_MEAN), list(IMAGENET_DEVIATION))
    return View(pixels, box)


def _jitter(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue, in random order."""
    operations: list[tuple[Callable[[Image.Image, float], Image.Image], tuple[float, float]]] = [
        (F.adjust_brightness, (1 - BRIGHTNESS, 1 + BRIGHTNESS)),
        (F.adjust_contrast, (1 - CONTRAST, 1 + CONTRAST)),
        (F.adjust_saturation, (1 - SATURATION, 1 + SATURATION)),
        (F.adjust_hue, (-HUE, HUE)),
    ]
    for index in rng.permutation(len(operations)):
        operation, extent = operations[index]
        view = operation(view, rng.uniform(*extent))
    return view


def stack_boxes(boxes: list[CropBox]) -> Tensor:
    """int64 [B, 5]: top, left, height, width, flip."""
    return torch.tensor([list(box) for box in boxes], dtype=torch.int64)
