"""From an image with its label map to the network's square input, and which of its patches are remembered.

Sources: `hbird/utils/transforms.py`, `image_transformations.py` of vpariza/open-hummingbird-eval 5e79da2; `eval_segmentation.py` of
facebookresearch/capi 98b4fa1.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode, RandomApply, RandomResizedCrop
from torchvision.transforms import functional as F

from common.images import IMAGENET_MEAN
from eval.retrieval_segmentation.rules import class_counts, sample_patches

JITTER, JITTER_PROBABILITY = 0.1, 0.5
# A box that is larger than the image is refused, so the upper scale is cut in practice.
CROP_SCALE, CROP_RATIO = (0.5, 2.0), (3 / 4, 4 / 3)


@dataclass(frozen=True, kw_only=True)
class SquareView:
    """A `View` of `eval.probes.patches`; `table` turns the files' labels into the protocol's.

    A random one depends on the seed and its number alone, so it is the same in any number of processes.
    """

    size: int
    std: tuple[float, float, float]
    bicubic: bool
    table: tuple[int, ...]
    num_classes: int
    kept: int
    epochs: int = 1
    random: bool = False
    seed: int = 0

    def __call__(self, image: Image.Image, labels_HW: npt.NDArray[np.uint8], number: int) -> tuple[Tensor, Tensor]:
        labels_HW = np.array(self.table, dtype=np.uint8)[labels_HW]
        if not self.random:
            return stretch(image, labels_HW, self.size, self.std, self.bicubic)
        # torchvision draws from the global generator only; other users of it must not notice.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._draw(number, "view"))
            return augment(image, torch.from_numpy(labels_HW), self.size, self.std)

    def choose(self, pixels_NP: Tensor, number: int) -> Tensor:
        if self.kept == len(pixels_NP):
            return torch.arange(self.kept)
        draws_N = torch.rand(len(pixels_NP), generator=torch.Generator().manual_seed(self._draw(number, "patches")))
        return sample_patches(class_counts(pixels_NP, self.num_classes), draws_N, self.kept)

    def _draw(self, number: int, purpose: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed} {number} {purpose}".encode()).digest()[:6], "big")


def augment(image: Image.Image, labels_HW: Tensor, size: int, std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """A view drawn by the global generator: colours at full size, then a box resized bilinearly, its labels by nearest neighbour."""
    jitters = [ColorJitter(brightness=JITTER), ColorJitter(contrast=JITTER)]
    jitters += [ColorJitter(saturation=JITTER), ColorJitter(hue=JITTER)]
    for jitter in jitters:
        image = RandomApply([jitter], p=JITTER_PROBABILITY)(image)
    pixels_3HW = F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(std))
    box = RandomResizedCrop.get_params(pixels_3HW, list(CROP_SCALE), list(CROP_RATIO))
    view = F.resized_crop(pixels_3HW, *box, [size, size], InterpolationMode.BILINEAR, antialias=True)
    return view, F.resized_crop(labels_HW[None], *box, [size, size], InterpolationMode.NEAREST)[0]


def stretch(
    image: Image.Image, labels_HW: npt.NDArray[np.uint8], size: int, std: Sequence[float], bicubic: bool
) -> tuple[Tensor, Tensor]:
    """The whole image resized to a square; the labels by nearest neighbour, by Pillow's rule where the image is bicubic (CAPI)."""
    kind = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    pixels = F.normalize(F.to_tensor(F.resize(image, [size, size], kind)), list(IMAGENET_MEAN), list(std))
    if bicubic:
        resized = Image.fromarray(labels_HW).resize((size, size), Image.Resampling.NEAREST)
        return pixels, torch.from_numpy(np.array(resized))
    return pixels, F.resize(torch.from_numpy(labels_HW)[None], [size, size], InterpolationMode.NEAREST)[0]
