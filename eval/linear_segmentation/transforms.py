"""From an image and its label map to the network's input, for training and for tests.

Everything random comes from one generator per image, so that it depends on neither the number of processes nor an interruption.

Shapes: H x W pixels; boxes are (top, bottom, left, right), half-open. Labels are classes from 0, and `VOID`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

from eval.linear_segmentation.protocol import Rules, has_unlabelled_class
from eval.probes import augment
from eval.probes.augment import Array
from eval.probes.data import VOID, Split, read_image
from eval.probes.dense import Box
from eval.probes.pixels import nearest
from eval.probes.training import Draw, seed_of

PIXEL_BYTES = 13  # three channels of float32 and a label


def training_pair(image: Image.Image, labels_HW: Array, rules: Rules, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random part of an image, resized, mirrored and recoloured: float [3, size, size], normalised, and labels of that size."""
    by_opencv = rules.resize == "opencv"
    if rules.stride is None:
        part, labels = _cut_and_stretched(image, labels_HW, rules, random)
    else:
        wanted = augment.scaled_size(image.size, rules.size, float(random.uniform(*rules.scales)), by_opencv)
        resized, labels_HW = augment.resize_image(image, wanted, by_opencv), augment.resize_labels(labels_HW, wanted, by_opencv)
        top, bottom, left, right = chosen_box(labels_HW, rules, random)
        part, labels = resized[top:bottom, left:right], labels_HW[top:bottom, left:right]
    if random.random() < rules.flip:
        part, labels = part[:, ::-1], labels[:, ::-1]
    pixels_3HW = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)
    if rules.hue_degrees is not None:
        pixels_3HW = augment.recoloured(pixels_3HW, augment.colour_changes(rules.hue_degrees, random), by_opencv)
    missing = (0, rules.size - part.shape[1], 0, rules.size - part.shape[0])
    padded = F.pad(torch.from_numpy(np.ascontiguousarray(labels)), missing, value=VOID)
    return F.pad(augment.normalised(pixels_3HW), missing), padded


def test_pair(image: Image.Image, labels_HW: Array, rules: Rules) -> tuple[Tensor, Tensor]:
    """The whole image, float [3, h, w], normalised, and the labels that it is scored against, of their own size or `scored_side`."""
    if rules.scored_side is None:
        by_opencv = rules.resize == "opencv"
        resized = augment.resize_image(image, augment.scaled_size(image.size, rules.size, 1.0, by_opencv), by_opencv)
        return augment.normalised(torch.from_numpy(resized).permute(2, 0, 1)), torch.from_numpy(labels_HW)
    square = (rules.size, rules.size)
    labels = np.array(Image.fromarray(labels_HW).resize(square, Image.Resampling.NEAREST))
    pixels = torch.from_numpy(np.array(image.resize(square, Image.Resampling.BILINEAR))).permute(2, 0, 1)
    return augment.normalised(pixels), nearest(torch.from_numpy(labels), (rules.scored_side, rules.scored_side))


def chosen_box(labels_HW: Array, rules: Rules, random: np.random.Generator) -> Box:
    """The first box in which no class has too large a share, or the eleventh, which nobody checks."""

    def boxes() -> Iterator[Box]:
        while True:
            top, left = (int(random.integers(0, max(side - rules.size, 0) + 1)) for side in labels_HW.shape)
            yield top, top + rules.size, left, left + rules.size

    return augment.first_mixed_box(labels_HW, boxes(), rules.largest_share)


def _cut_and_stretched(image: Image.Image, labels_HW: Array, rules: Rules, random: np.random.Generator) -> tuple[Array, Array]:
    """A random part of any shape, stretched to a square."""
    # torchvision draws from the global generator only; other users of it must not notice.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**48)))
        box = RandomResizedCrop.get_params(image, list(rules.scales), [3 / 4, 4 / 3])
    side = [rules.size, rules.size]
    part = TF.resized_crop(image, *box, side, InterpolationMode.BILINEAR)
    labels = TF.resized_crop(Image.fromarray(labels_HW), *box, side, InterpolationMode.NEAREST)
    return np.array(part), np.array(labels)


def _read_pair(split: Split, rules: Rules, index: int) -> tuple[Image.Image, Array]:
    """An image, and classes from 0, `VOID` where the pixel does not count."""
    image_path, label_path = list(split.pairs.values())[index]
    image = read_image(image_path)
    if not has_unlabelled_class(rules, split.of):
        return image, split.of.read_classes(label_path, image.size)
    labels_HW = split.of.read_labels(label_path, image.size)
    return image, np.where(labels_HW == split.of.void, np.uint8(VOID), labels_HW)


def read_batch(split: Split, rules: Rules, seed: int, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    pairs = [
        training_pair(*_read_pair(split, rules, index), rules, np.random.default_rng(seed_of(seed, passed, index)))
        for passed, index in draws
    ]
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def read_test(split: Split, rules: Rules, index: int) -> tuple[Tensor, Tensor]:
    return test_pair(*_read_pair(split, rules, index), rules)
