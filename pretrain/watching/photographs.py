"""The few photographs that are drawn again and again, and how images become a network's input here.

Shapes: H x W pixels.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from common.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain.data.sources import ImageFiles
from pretrain.data.views import decode_whole

logger = logging.getLogger(__name__)

RESIZE_FACTOR = 256 / 224
"""The shorter side before the centre crop, over the crop's side: DINO's evaluations resize to 256 and crop 224."""

SHOWN_SIZE = 448
"""Side in pixels of images to look at, whatever the side of those that the network sees."""

_LONGEST_NAME = 30


@dataclass(frozen=True)
class Photograph:
    """An image to draw."""

    name: str
    """Of its file and folder, the end of it."""
    image: Image.Image
    """RGB."""

    def square(self, size: int) -> Image.Image:
        """Its middle, as large as possible, at size x size pixels."""
        return centre_crop(self.image, size, size)


def centre_crop(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """The middle of an image whose shorter side is resized by bicubic interpolation first."""
    return F.center_crop(F.resize(image, resize, InterpolationMode.BICUBIC), [crop, crop])


def network_input(image: Image.Image) -> Tensor:
    """float32 [3, H, W], normalised."""
    return F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))


def squares(photographs: Sequence[Photograph], size: int, device: torch.device) -> tuple[list[npt.NDArray[np.uint8]], Tensor]:
    """The photographs' middles, to look at ([S, S, 3] each, S = `SHOWN_SIZE`) and as a network's input [B, 3, size, size]."""
    inputs = [network_input(photograph.square(size)) for photograph in photographs]
    return [np.asarray(photograph.square(SHOWN_SIZE)) for photograph in photographs], torch.stack(inputs).to(device)


def choose_photographs(source: ImageFiles, count: int, spread: bool) -> list[Photograph]:
    """Up to `count` readable images of a data set, the same ones every time.

    Args:
        source: The data set.
        count: How many.
        spread: From all over the set rather than the first ones: a sorted one begins with images of one class.

    Raises:
        ValueError: If none can be read.
    """
    images = len(source.names)
    starts = np.linspace(0, images, count, endpoint=False).astype(int).tolist() if spread else [0]
    chosen: dict[int, Photograph] = {}
    for index in dict.fromkeys([*starts, *range(images)]):
        if len(chosen) == min(count, images):
            break
        path = Path(source.describe(index))
        try:
            image = Image.fromarray(decode_whole(source.load(index)))
        except OSError as error:
            logger.warning("not drawing the unreadable image %s: %s", path, error)
        else:
            chosen[index] = Photograph(f"{path.parent.name}/{path.name}"[-_LONGEST_NAME:], image)
    if not chosen:
        raise ValueError(f"none of the {images} images to draw can be read; the first is {source.describe(0)}")
    return list(chosen.values())
