"""The few photographs that are drawn again and again, and how images become a network's input here.

Shapes: H x W pixels.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pretrain.data.images import read_image
from pretrain.data.views import IMAGENET_DEVIATION, IMAGENET_MEAN

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
    return F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_DEVIATION))


def squares(photographs: Sequence[Photograph], size: int, device: torch.device) -> tuple[list[npt.NDArray[np.uint8]], Tensor]:
    """The photographs' middles, to look at ([S, S, 3] each, S = `SHOWN_SIZE`) and as a network's input [B, 3, size, size]."""
    inputs = [network_input(photograph.square(size)) for photograph in photographs]
    return [np.asarray(photograph.square(SHOWN_SIZE)) for photograph in photographs], torch.stack(inputs).to(device)


def choose_photographs(
    paths: Sequence[Path], count: int, spread: bool, read: Callable[[Path], Image.Image] = read_image
) -> list[Photograph]:
    """Up to `count` readable images of a listing, the same ones every time.

    Args:
        paths: The listing.
        count: How many.
        spread: From all over the listing rather than the first ones: a sorted listing begins with images of one class.
        read: Decodes an image.

    Raises:
        ValueError: If none can be read.
    """
    starts = np.linspace(0, len(paths), count, endpoint=False).astype(int).tolist() if spread else [0]
    order = list(dict.fromkeys(starts)) + list(range(len(paths)))
    chosen: dict[Path, Photograph] = {}
    for index in order:
        if len(chosen) == min(count, len(paths)):
            break
        path = paths[index]
        if path not in chosen:
            try:
                chosen[path] = Photograph(f"{path.parent.name}/{path.name}"[-_LONGEST_NAME:], read(path))
            except OSError as error:
                logger.warning("not drawing the unreadable image %s: %s", path, error)
    if not chosen:
        raise ValueError(f"none of the {len(paths)} images to draw can be read; the first is {paths[0]}")
    return list(chosen.values())
