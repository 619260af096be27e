"""Transforms of images with label maps, mmseg's and DINOv3's variants of them, and torchvision's parts: sizes, boxes, colours.

Shapes: H x W pixels; boxes are (top, bottom, left, right), half-open. Labels are classes from 0, and `VOID`.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as TF

from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.probes.data import VOID
from eval.probes.dense import Box
from eval.probes.pixels import nearest

BOX_CHECKS = 10
LONGEST_ASPECT = 4  # of mmseg's (2048, 512)
BRIGHTNESS = 32  # largest sum, of 255
CONTRAST = SATURATION = (0.5, 1.5)

Array = npt.NDArray[np.uint8]
Change = tuple[str, float, float]
"""A change of colours: `saturation` or `hue` with a factor, or `convert` with a factor and what is added to 0..255."""


def normalised(pixels_3HW: Tensor) -> Tensor:
    mean, deviation = (255 * torch.tensor(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels_3HW.float() - mean) / deviation


def scaled_size(size: tuple[int, int], side: int, scale: float, by_opencv: bool) -> tuple[int, int]:
    """(width, height) of an image of this size after the short side has become about `side` x scale: DINOv3's rule, or mmseg's."""
    short = int(side * scale)
    if not by_opencv:
        other = int(short * max(size) / min(size) + 0.5)
        return (short, other) if size[0] <= size[1] else (other, short)
    factor = min(int(LONGEST_ASPECT * side * scale) / max(size), short / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def resize_image(image: Image.Image, wanted: tuple[int, int], by_opencv: bool) -> Array:
    """Pixels [H, W, 3] at (width, height), by bilinear interpolation: Pillow's has antialiasing, OpenCV's has none."""
    if not by_opencv:
        return np.array(image.resize(wanted, Image.Resampling.BILINEAR))
    return np.asarray(cv2.resize(np.asarray(image), wanted, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def resize_labels(labels_HW: Array, wanted: tuple[int, int], by_opencv: bool) -> Array:
    if not by_opencv:
        return nearest(torch.from_numpy(labels_HW), wanted[::-1]).numpy()
    return np.asarray(cv2.resize(labels_HW, wanted, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def stretched(image: Image.Image, labels_HW: Array, side: int) -> tuple[Array, Array]:
    """Pixels [side, side, 3] and labels of that size, by Pillow's bilinear and nearest rules."""
    labels = Image.fromarray(labels_HW).resize((side, side), Image.Resampling.NEAREST)
    return np.array(image.resize((side, side), Image.Resampling.BILINEAR)), np.array(labels)


def random_part(size: tuple[int, int], scales: tuple[float, float], random: np.random.Generator) -> Box:
    """A part of an image of (height, width), with a share of its area within `scales` and sides of 3:4 to 4:3."""
    # torchvision draws from the global generator only; other users of it must not notice.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**48)))
        top, left, height, width = RandomResizedCrop.get_params(torch.empty(1, *size), list(scales), [3 / 4, 4 / 3])
    return top, top + height, left, left + width


def random_boxes(size: tuple[int, int], side: int, random: np.random.Generator) -> Iterator[Box]:
    """Squares in an image of (width, height), one after the other; they exceed sides that are shorter."""
    while True:
        top, left = (int(random.integers(0, max(length - side, 0) + 1)) for length in size[::-1])
        yield top, top + side, left, left + side


def first_mixed_box(labels_HW: Array, boxes: Iterator[Box], largest_share: float | None) -> Box:
    for _ in range(BOX_CHECKS):
        top, bottom, left, right = box = next(boxes)
        counts = np.bincount(labels_HW[top:bottom, left:right].ravel(), minlength=VOID + 1)[:VOID]
        if largest_share is None or (np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < largest_share):
            return box
    return next(boxes)


def colour_changes(hue_degrees: float | None, random: np.random.Generator) -> list[Change]:
    """Mmseg's distortion: each change half of the time, contrast before or after saturation and hue. None: no distortion."""
    if hue_degrees is None:
        return []
    changes: list[Change] = []

    def maybe(name: str, low: float, high: float) -> None:
        if random.integers(2):
            drawn = float(random.uniform(low, high))
            changes.append(("convert", 1.0, drawn) if name == "brightness" else (name, drawn, 0.0))

    maybe("brightness", -BRIGHTNESS, BRIGHTNESS)
    contrast_first = bool(random.integers(2))
    if contrast_first:
        maybe("convert", *CONTRAST)
    maybe("saturation", *SATURATION)
    maybe("hue", -hue_degrees / 360, hue_degrees / 360)
    if not contrast_first:
        maybe("convert", *CONTRAST)
    return changes


def recoloured(pixels_3HW: Tensor, changes: list[Change], by_opencv: bool) -> Tensor:
    """Pixels, uint8, after the changes: with torchvision's saturation and hue, as DINOv3, or in OpenCV's HSV, as mmseg."""
    for name, factor, offset in changes:
        if name == "convert":
            pixels_3HW = (pixels_3HW.float() * factor + offset).clamp(0, 255).to(torch.uint8)
        elif not by_opencv:
            change = TF.adjust_saturation if name == "saturation" else TF.adjust_hue
            pixels_3HW = change(pixels_3HW, factor)
        else:
            hsv = cv2.cvtColor(pixels_3HW.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV)
            if name == "saturation":
                hsv[..., 1] = np.clip(hsv[..., 1].astype(np.float32) * factor, 0, 255).astype(np.uint8)
            else:
                hsv[..., 0] = (hsv[..., 0].astype(int) + int(np.floor(180 * factor))) % 180
            pixels_3HW = torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).permute(2, 0, 1)
    return pixels_3HW
