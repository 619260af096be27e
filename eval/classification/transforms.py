"""From a picture to the network's input.

Source: `eval_knn.py` and `eval_linear.py` of facebookresearch/dino 7c446df.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms import functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Transform(Protocol):
    """Makes the input of one image; goes to the loader's worker processes."""

    def __call__(self, image: Image.Image, index: int) -> Tensor:
        """Transform an RGB picture.

        Args:
            image: The picture.
            index: Its place in the split; what is random depends on it and on nothing else that changes with the workers.

        Returns:
            [3, H, W], normalised.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class CentreCrop:
    """The shorter side resized by bicubic interpolation, then the middle."""

    resize: int
    """Shorter side in pixels."""
    crop: int
    """Side of the crop in pixels."""

    def __call__(self, image: Image.Image, index: int) -> Tensor:
        """See `Transform`; nothing is random."""
        del index
        resized = F.resize(image, self.resize, interpolation=InterpolationMode.BICUBIC)
        return _normalised(F.center_crop(resized, [self.crop, self.crop]))


@dataclass(frozen=True, kw_only=True)
class RandomCropAndFlip:
    """A random part of the picture resized by bilinear interpolation, mirrored half of the time: torchvision's defaults.

    The parameters are drawn per image and epoch, so they are the same in any number of processes and after a continuation.
    """

    crop: int
    """Side in pixels."""
    seed: int
    """Of the run."""
    epoch: int
    """0-based."""

    def __call__(self, image: Image.Image, index: int) -> Tensor:
        """See `Transform`."""
        digest = hashlib.sha256(f"{self.seed} {self.epoch} {index}".encode()).digest()
        # torchvision draws from the global generator only; other users of it must not notice.
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(int.from_bytes(digest[:6], "big"))
        try:
            return _normalised(RandomHorizontalFlip()(RandomResizedCrop(self.crop)(image)))
        finally:
            torch.default_generator.set_state(state)


def _normalised(image: Image.Image) -> Tensor:
    normalised: Tensor = F.normalize(F.to_tensor(image), MEAN, STD)
    return normalised
