"""Multi-crop: one photograph to two global and several local views that remember where they come from.

facebookresearch/dino 7c446df, DataAugmentationDINO. What is drawn is in `pretrain.data.draws`, what is done to pixels in
`pretrain.data.decoding` and `pretrain.data.colours`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from pretrain.data.colours import change_colours
from pretrain.data.decoding import EncodedImage, Pixels, Planes, resize, resized_crop
from pretrain.data.draws import ColourDraws, CropBox, ViewKind, draw_views
from pretrain.data.patch_photometric import change_each_patch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_LEFT_TO_RIGHT = 1

SHARED_SIZE = 256
"""Side in pixels to which images are resized first where several share their draws (PW-Self)."""


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
    on_device: bool = False
    """Change colours (jitter, greyscale, blur, solarisation) in the training process, on its device and for whole batches, instead of
    in the workers, which then only decode and crop. The draws are the same; pixels differ by a level or two of 255."""

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
        if self.on_device and self.photometric_patch:
            raise ValueError(
                "views.photometric_patch follows the other changes of colours, in the workers; leave out views.on_device"
            )
        sizes = [self.global_size, self.local_size] if self.local_crops else [self.global_size]
        if self.photometric_patch and any(size % self.photometric_patch for size in sizes):
            raise ValueError(f"views.photometric_patch={self.photometric_patch} does not divide the crops of {sizes} pixels")


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
