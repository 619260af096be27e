"""Multi-crop: one photograph to two global and several local views that remember where they come from.

facebookresearch/dino 7c446df, DataAugmentationDINO. What is drawn is in `pretrain.data.draws`, what is done to pixels in
`pretrain.data.decoding` and `pretrain.data.colours`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from pretrain.config import ViewsConfig
from pretrain.data.colours import change_colours
from pretrain.data.decoding import EncodedImage, Pixels, Planes, resize, resized_crop
from pretrain.data.draws import ColourDraws, CropBox, ViewKind, draw_views
from pretrain.data.patch_photometric import change_each_patch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_LEFT_TO_RIGHT = 1

SHARED_SIZE = 256
"""Side in pixels to which images are resized first where several share their draws (PW-Self)."""


class Views(NamedTuple):
    """The views of one image."""

    pixels: list[Planes]
    """uint8 RGB [3, size, size] of each."""
    boxes: list[CropBox]
    """The geometry of each."""
    colours: ColourDraws
    """How the colours of each change, or have been changed."""


def view_kinds(config: ViewsConfig) -> list[ViewKind]:
    """The kinds of all views of an image, in order: global 1, global 2, local ones."""
    return [
        ViewKind(config.global_size, config.global_scale, 1.0, 0.0, config.photometric_patch),
        ViewKind(config.global_size, config.global_scale, 0.1, 0.2, config.photometric_patch),
        *[ViewKind(config.local_size, config.local_scale, 0.5, 0.0, config.photometric_patch)] * config.local_crops,
    ]


def make_views(
    content: bytes | Pixels, kinds: Sequence[ViewKind], rng: np.random.Generator, *, shared: bool = False, colours: bool = True
) -> Views:
    """One view of each kind.

    Args:
        content: Of an image file; or pixels uint8 [H, W, 3].
        kinds: The views.
        rng: Source of all draws.
        shared: Resize the image to a square of `SHARED_SIZE` first, so that the draws fit every image.
        colours: Whether to change colours; geometry alone otherwise.

    Raises:
        OSError: If the image cannot be decoded.
    """
    image = EncodedImage(content)
    if shared:
        image = EncodedImage(_to_shared_size(image))
    draws = draw_views(kinds, image.width, image.height, rng)
    picture = image.decode(draws.boxes_V4, [kind.size for kind in kinds])
    pixels = []
    for number, kind in enumerate(kinds):
        view_3HW = resized_crop(picture, draws.boxes_V4[number], kind.size)
        if draws.flip_V[number]:
            view_3HW = _mirrored(view_3HW)
        if colours:
            view_3HW = _planes(change_colours(cv2.merge(list(view_3HW)), draws.colours, number))
            if kind.photometric_patch:
                view_3HW = _change_each_patch(view_3HW, kind.photometric_patch, rng)
        pixels.append(view_3HW)
    return Views(pixels, draws.crop_boxes(), draws.colours)


def _to_shared_size(image: EncodedImage) -> Pixels:
    whole_14 = np.array([[0, 0, image.height, image.width]])
    picture = image.decode(whole_14, [SHARED_SIZE])
    return cv2.merge(list(resize(picture.pixels_HW3, SHARED_SIZE, "bilinear")))


def _mirrored(view_3HW: Planes) -> Planes:
    channels, height, width = view_3HW.shape
    # The rows of all planes as those of one picture.
    return cv2.flip(view_3HW.reshape(channels * height, width), _LEFT_TO_RIGHT).reshape(channels, height, width)


def _planes(view_HW3: Pixels) -> Planes:
    height, width, channels = view_HW3.shape
    planes_3HW = np.empty((channels, height, width), dtype=np.uint8)
    cv2.split(view_HW3, list(planes_3HW))
    return planes_3HW


def _change_each_patch(view_3HW: Planes, patch_size: int, rng: np.random.Generator) -> Planes:
    changed_3HW = change_each_patch(torch.from_numpy(view_3HW).float() / 255, patch_size, rng)
    return (changed_3HW * 255).round().to(torch.uint8).numpy()


def stack_boxes(boxes: list[CropBox]) -> Tensor:
    """int64 [B, 5]: top, left, height, width, flip."""
    return torch.tensor([list(box) for box in boxes], dtype=torch.int64)
