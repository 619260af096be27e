"""From an image and its label map to the network's input, for training and for tests.

Everything random comes from one generator per image, so that it depends on neither the number of processes nor an interruption.

Shapes: H x W pixels; boxes are (top, bottom, left, right), half-open. Labels are classes from 0, and `VOID`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eval.linear_segmentation.protocol import Rules, has_unlabelled_class
from eval.probes import augment
from eval.probes.data import VOID, Split, read_image
from eval.probes.dense import Box
from eval.probes.pixels import nearest
from eval.probes.training import Draw, seed_of

PIXEL_BYTES = 13  # three channels of float32 and a label


class Changes(NamedTuple):
    """What is drawn for a training image."""

    labels_HW: augment.Array  # of the whole image, at the size that it is resized to
    box: Box
    flip: bool
    colours: list[augment.Change]


def draw_changes(labels_HW: augment.Array, rules: Rules, random: np.random.Generator) -> Changes:
    height, width = labels_HW.shape
    if rules.stride is None:
        box = augment.random_part((height, width), rules.scales, random)
    else:
        by_opencv = rules.resize == "opencv"
        wanted = augment.scaled_size((width, height), rules.size, float(random.uniform(*rules.scales)), by_opencv)
        labels_HW = augment.resize_labels(labels_HW, wanted, by_opencv)
        box = augment.first_mixed_box(labels_HW, augment.random_boxes(wanted, rules.size, random), rules.largest_share)
    flip = bool(random.random() < rules.flip)
    return Changes(labels_HW, box, flip, augment.colour_changes(rules.hue_degrees, random))


def training_pair(image: Image.Image, changes: Changes, rules: Rules) -> tuple[Tensor, Tensor]:
    """A part of an image, resized, mirrored and recoloured: float [3, size, size], normalised, and labels of that size."""
    by_opencv = rules.resize == "opencv"
    (height, width), (top, bottom, left, right) = changes.labels_HW.shape, changes.box
    labels = changes.labels_HW[top:bottom, left:right]
    if rules.stride is None:
        part, labels = augment.stretched(image.crop((left, top, right, bottom)), labels, rules.size)
    else:
        part = augment.resize_image(image, (width, height), by_opencv)[top:bottom, left:right]
    pixels_3HW, labels_HW = torch.from_numpy(part).permute(2, 0, 1), torch.from_numpy(labels)
    if changes.flip:
        pixels_3HW, labels_HW = pixels_3HW.flip(-1), labels_HW.flip(-1)
    pixels_3HW = augment.recoloured(pixels_3HW, changes.colours, by_opencv)
    missing = (0, rules.size - part.shape[1], 0, rules.size - part.shape[0])
    return F.pad(augment.normalised(pixels_3HW), missing), F.pad(labels_HW, missing, value=VOID)


def test_pair(image: Image.Image, labels_HW: augment.Array, rules: Rules) -> tuple[Tensor, Tensor]:
    """The whole image, float [3, h, w], normalised, and the labels that it is scored against, of their own size or `scored_side`."""
    if rules.scored_side is None:
        by_opencv = rules.resize == "opencv"
        resized = augment.resize_image(image, augment.scaled_size(image.size, rules.size, 1.0, by_opencv), by_opencv)
        return augment.normalised(torch.from_numpy(resized).permute(2, 0, 1)), torch.from_numpy(labels_HW)
    pixels_HW3, labels_HW = augment.stretched(image, labels_HW, rules.size)
    labels = nearest(torch.from_numpy(labels_HW), (rules.scored_side, rules.scored_side))
    return augment.normalised(torch.from_numpy(pixels_HW3).permute(2, 0, 1)), labels


def _read_pair(split: Split, rules: Rules, index: int) -> tuple[Image.Image, augment.Array]:
    """An image, and classes from 0, `VOID` where the pixel does not count."""
    image_path, label_path = list(split.pairs.values())[index]
    image = read_image(image_path)
    if not has_unlabelled_class(rules, split.of):
        return image, split.of.read_classes(label_path, image.size)
    labels_HW = split.of.read_labels(label_path, image.size)
    return image, np.where(labels_HW == split.of.void, np.uint8(VOID), labels_HW)


def read_batch(split: Split, rules: Rules, seed: int, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    pairs = []
    for passed, index in draws:
        image, labels_HW = _read_pair(split, rules, index)
        changes = draw_changes(labels_HW, rules, np.random.default_rng(seed_of(seed, passed, index)))
        pairs.append(training_pair(image, changes, rules))
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def read_test(split: Split, rules: Rules, index: int) -> tuple[Tensor, Tensor]:
    return test_pair(*_read_pair(split, rules, index), rules)
