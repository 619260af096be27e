"""What is drawn for the views of one image: boxes, flips, and how colours change.

facebookresearch/dino 7c446df, DataAugmentationDINO, whose operations are torchvision's and Pillow's. All numbers of an image are
drawn before it is decoded any further than its size, by a generator that the caller seeds: so a view is a function of
(seed, epoch, image) whatever process makes it and wherever its colours are changed. The number of draws depends on the kinds of views
alone, so that images of one size that share a generator's seed share everything.

Shapes: V views of an image, A attempts to place a box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
JITTER_EXTENTS = (0.4, 0.4, 0.2, 0.1)
"""Of brightness, contrast, saturation (factors 1 -+ extent) and hue (parts -+ extent of the circle)."""
GREY_PROBABILITY = 0.2
BLUR_RADIUS = (0.1, 2.0)
ASPECT_RATIO = (3 / 4, 4 / 3)

_CROP_ATTEMPTS = 10
_OTHER_NUMBERS = (
    14  # flip, jitter, 4 for the order of its operations, 4 for their factors, grey, blur, its radius, solarisation
)


@dataclass(frozen=True)
class ViewKind:
    """How views of one kind are made; see `pretrain.data.views.view_kinds`."""

    size: int
    """Side in pixels."""
    scale: tuple[float, float]
    """Smallest and largest area of the box, as a part of the image."""
    blur_probability: float
    """Of a Gaussian blur."""
    solarize_probability: float
    """Of solarisation."""
    photometric_patch: int = 0
    """See `ViewsConfig`."""


class CropBox(NamedTuple):
    """Where a view was cut out, in pixels of the image, and whether it was mirrored afterwards."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


class ColourDraws(NamedTuple):
    """How the colours of V views change; of one view where the first axis is left out."""

    jitter_V: npt.NDArray[np.bool_]
    """Whether colours are jittered."""
    order_V4: npt.NDArray[np.int64]
    """Operations in the order of their use: 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    factors_V4: npt.NDArray[np.float64]
    """Of brightness, contrast and saturation: multiplied; of hue: added, in parts of the circle."""
    grey_V: npt.NDArray[np.bool_]
    """Whether colours are dropped."""
    radius_V: npt.NDArray[np.float64]
    """Deviation of the blur in pixels; 0 for none."""
    solarise_V: npt.NDArray[np.bool_]
    """Whether bright levels are inverted."""


class ViewDraws(NamedTuple):
    """Everything that is drawn for the views of one image."""

    boxes_V4: npt.NDArray[np.int64]
    """Top, left, height, width in pixels of the image."""
    flip_V: npt.NDArray[np.bool_]
    """Whether the crop is mirrored."""
    colours: ColourDraws
    """What happens after that."""

    def crop_boxes(self) -> list[CropBox]:
        """The geometry of each view."""
        pairs = zip(self.boxes_V4.tolist(), self.flip_V.tolist(), strict=True)
        return [CropBox._make([*box, flip]) for box, flip in pairs]


def draw_views(kinds: Sequence[ViewKind], width: int, height: int, rng: np.random.Generator) -> ViewDraws:
    """Draw the parameters of one view of each kind.

    Args:
        kinds: The views.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        rng: Source of all draws.
    """
    count = len(kinds)
    boxes_V4 = draw_boxes(width, height, np.array([kind.scale for kind in kinds]), rng)
    uniform_VN = rng.random((count, _OTHER_NUMBERS))
    factors_V4 = (2 * uniform_VN[:, 6:10] - 1) * JITTER_EXTENTS
    factors_V4[:, :3] += 1
    smallest, largest = BLUR_RADIUS
    blurs_V = uniform_VN[:, 11] < [kind.blur_probability for kind in kinds]
    return ViewDraws(
        boxes_V4=boxes_V4,
        flip_V=uniform_VN[:, 0] < FLIP_PROBABILITY,
        colours=ColourDraws(
            jitter_V=uniform_VN[:, 1] < JITTER_PROBABILITY,
            order_V4=uniform_VN[:, 2:6].argsort(axis=1),
            factors_V4=factors_V4,
            grey_V=uniform_VN[:, 10] < GREY_PROBABILITY,
            radius_V=np.where(blurs_V, smallest + (largest - smallest) * uniform_VN[:, 12], 0.0),
            solarise_V=uniform_VN[:, 13] < [kind.solarize_probability for kind in kinds],
        ),
    )


def draw_boxes(width: int, height: int, scales_V2: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw boxes as torchvision's RandomResizedCrop does.

    Area uniform within the scale, aspect ratio log-uniform in 3/4 to 4/3; after ten boxes that do not fit, the largest central box
    whose aspect ratio is allowed.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        scales_V2: Smallest and largest area of each box, as parts of the image's.
        rng: Source of all draws.

    Returns:
        int64 [V, 4]: top, left, height, width in pixels.
    """
    uniform_4VA = rng.random((4, len(scales_V2), _CROP_ATTEMPTS))
    smallest_V1, largest_V1 = scales_V2[:, :1], scales_V2[:, 1:]
    area_VA = width * height * (smallest_V1 + (largest_V1 - smallest_V1) * uniform_4VA[0])
    low, high = math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])
    ratio_VA = np.exp(low + (high - low) * uniform_4VA[1])
    widths_VA, heights_VA = np.rint(np.sqrt(area_VA * ratio_VA)), np.rint(np.sqrt(area_VA / ratio_VA))
    fits_VA = (widths_VA > 0) & (widths_VA <= width) & (heights_VA > 0) & (heights_VA <= height)
    tops_VA = np.floor(uniform_4VA[2] * (height - heights_VA + 1))
    lefts_VA = np.floor(uniform_4VA[3] * (width - widths_VA + 1))
    chosen_V = fits_VA.argmax(axis=1)
    every_V = np.arange(len(scales_V2))
    boxes_V4 = np.stack([values[every_V, chosen_V] for values in (tops_VA, lefts_VA, heights_VA, widths_VA)], axis=1)
    boxes_V4[~fits_VA.any(axis=1)] = _central_box(width, height)
    return boxes_V4.astype(np.int64)


def _central_box(width: int, height: int) -> tuple[int, int, int, int]:
    crop_width, crop_height = width, height
    if width / height < ASPECT_RATIO[0]:
        crop_height = round(width / ASPECT_RATIO[0])
    elif width / height > ASPECT_RATIO[1]:
        crop_width = round(height * ASPECT_RATIO[1])
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
