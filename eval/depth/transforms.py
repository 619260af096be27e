"""From files to what the network sees and is trained on.

Shapes: H x W pixels. Images are RGB, 0 to 1; depth is in metres, 0 where nothing was measured.
"""

from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.depth.data import MM_PER_M, Pair, read_pair, scaled_box
from eval.depth.protocol import Rules


class Recolouring(NamedTuple):
    """What an image's colours are changed by."""

    gamma: float
    brightness: float
    colours: tuple[float, float, float]


class Changes(NamedTuple):
    """What is drawn for a training image; the crop lies within the protocol's box."""

    degrees: float | None
    flip: bool
    top: int
    left: int
    recolouring: Recolouring | None


def read_tensors(pair: Pair) -> tuple[Tensor, Tensor]:
    """An image [3, H, W] and its depth [1, H, W], both float32."""
    pixels_HW3, depth_HW = (torch.from_numpy(values).float() for values in read_pair(pair))
    return pixels_HW3.permute(2, 0, 1) / 255, depth_HW[None] / MM_PER_M


def draw_changes(rules: Rules, height: int, width: int, random: np.random.Generator) -> Changes:
    """For an image of this size; ValueError if the crop is larger than the box."""
    top, bottom, left, right = scaled_box(rules.train_box, height, width)
    spare = (bottom - top - rules.crop[0], right - left - rules.crop[1])
    if min(spare) < 0:
        raise ValueError(
            f"crop={list(rules.crop)}: images of {height} x {width} have {bottom - top} x {right - left} pixels within the "
            "protocol's box; give a smaller --crop"
        )
    degrees = float(random.uniform(-rules.rotation_degrees, rules.rotation_degrees))
    gamma, brightness = (float(random.uniform(*limits)) for limits in (rules.gamma, rules.brightness))
    red, green, blue = random.uniform(*rules.colours, 3).tolist()
    recolouring = Recolouring(gamma, brightness, (red, green, blue))
    return Changes(
        degrees=degrees if random.random() < rules.rotation else None,
        flip=bool(random.random() < rules.flip),
        top=int(random.integers(spare[0] + 1)),
        left=int(random.integers(spare[1] + 1)),
        recolouring=recolouring if random.random() < rules.recolour else None,
    )


def training_pair(image_3HW: Tensor, depth_1HW: Tensor, changes: Changes, rules: Rules) -> tuple[Tensor, Tensor]:
    """A normalised crop of an image, and its depth."""
    top, bottom, left, right = scaled_box(rules.train_box, *image_3HW.shape[-2:])
    image_3HW, depth_1HW = (values[:, top:bottom, left:right] for values in (image_3HW, depth_1HW))
    if changes.degrees is not None:
        image_3HW, depth_1HW = rotated(image_3HW, depth_1HW, changes.degrees)
    if changes.flip:
        image_3HW, depth_1HW = image_3HW.flip(-1), depth_1HW.flip(-1)
    rows, columns = (slice(start, start + side) for start, side in zip((changes.top, changes.left), rules.crop, strict=True))
    image_3HW, depth_1HW = image_3HW[:, rows, columns], depth_1HW[:, rows, columns]
    if changes.recolouring is not None:
        image_3HW = recoloured(image_3HW, changes.recolouring)
    return normalised(image_3HW), depth_1HW.contiguous()


def rotated(image_3HW: Tensor, depth_1HW: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Both turned counter-clockwise about the centre; what comes in from outside is black, and without depth.

    With a `fill`, torchvision weights the image's edge by its coverage twice, as in the published code.
    """
    image_3HW = TF.rotate(image_3HW, degrees, InterpolationMode.BILINEAR, fill=0.0)
    return image_3HW, TF.rotate(depth_1HW, degrees, InterpolationMode.NEAREST, fill=0.0)


def recoloured(image_3HW: Tensor, by: Recolouring) -> Tensor:
    """Gamma acts on values from 0 to 255, so that it also changes the brightness."""
    levels_3HW = (255 * image_3HW.double()) ** by.gamma * by.brightness
    levels_3HW = levels_3HW * torch.tensor(by.colours, dtype=torch.float64)[:, None, None]
    return (levels_3HW.clamp(0, 255) / 255).float()


def normalised(image_3HW: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image_3HW - mean) / deviation
