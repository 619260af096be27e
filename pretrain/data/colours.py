"""How the colours of views change: jitter, greyscale, blur and solarisation; and PW-Self's changes of each patch by itself.

What DINO's pipeline asks of torchvision and Pillow (facebookresearch/dino 7c446df, DataAugmentationDINO), for a view by OpenCV, which
is several times faster, and for a batch of views by torch on any device. Solarisation is equal; brightness, contrast, saturation and
grey are within a level of 255; hue, which Pillow rounds to 8 bits on the way, is nearer on average than torchvision's own operation
on tensors; blur is within a fraction of a level, except for 6 pixels at the border, which Pillow extends before each of its three box
filters and OpenCV before the one filter that equals them.

Shapes: V views of an image, B views in a batch, M of them that an operation concerns, H x W pixels, T taps.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import functional as tvf

from common.distributed import queued

JITTER_PROBABILITY, GREY_PROBABILITY = 0.8, 0.2
JITTERS = ("brightness", "contrast", "saturation", "hue")
JITTER_EXTENTS = (0.4, 0.4, 0.1)  # of all but saturation: factors are 1 -+ extent; of hue: -+ extent, in parts of the circle
BLUR_RADIUS = (0.1, 2.0)
SOLARISE_THRESHOLD = 128
NUM_COLOUR_DRAWS = 13  # jitter, 4 for the order of its operations, 4 for their factors, grey, blur, its radius, solarisation

Pixels = npt.NDArray[np.uint8]  # [H, W, 3] RGB
Values = npt.NDArray[np.float64]


class ColourDraws(NamedTuple):
    """How the colours of V views change."""

    jitter_V: npt.NDArray[np.bool_]
    order_V4: npt.NDArray[np.int64]  # numbers of `JITTERS`
    factors_V4: Values  # of `JITTERS`, in the order of that table
    grey_V: npt.NDArray[np.bool_]
    radius_V: Values  # the deviation of the blur in pixels, 0 for none
    solarise_V: npt.NDArray[np.bool_]


def draw_colours(
    uniform_VN: Values, blur_probability_V: Values, solarise_probability_V: Values, saturation_V: Values
) -> ColourDraws:
    """The changes of V views, given `NUM_COLOUR_DRAWS` numbers from 0 to 1 for each and the largest change of saturation."""
    brightness, contrast, hue = JITTER_EXTENTS
    extents_V4 = [(brightness, contrast, saturation, hue) for saturation in saturation_V]
    smallest, largest = BLUR_RADIUS
    radius_V = smallest + (largest - smallest) * uniform_VN[:, 11]
    return ColourDraws(
        jitter_V=uniform_VN[:, 0] < JITTER_PROBABILITY,
        order_V4=uniform_VN[:, 1:5].argsort(axis=1),
        factors_V4=(2 * uniform_VN[:, 5:9] - 1) * extents_V4 + (1, 1, 1, 0),
        grey_V=uniform_VN[:, 9] < GREY_PROBABILITY,
        radius_V=np.where(uniform_VN[:, 10] < blur_probability_V, radius_V, 0.0),
        solarise_V=uniform_VN[:, 12] < solarise_probability_V,
    )


# One view by OpenCV.

_TRUNCATE = -0.499  # rounding after this equals Pillow's cutting off of fractions
_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601, Pillow's
_KEEP_34, _GREY_34 = np.eye(3, 4), np.array([[*_GREY_WEIGHTS, 0]] * 3)
_KEEP_34[:, 3] = _GREY_34[:, 3] = _TRUNCATE
_SOLARISED = np.where(np.arange(256) < SOLARISE_THRESHOLD, np.arange(256), 255 - np.arange(256)).astype(np.uint8)
_HUES = 255  # Pillow's, cut off; OpenCV writes the nearest of 256, one too high then, and reads one of 255
_HUE_OFFSET = -1


def change_colours(pixels_HW3: Pixels, draws: ColourDraws, view: int) -> Pixels:
    """Jitter, greyscale, blur and solarise a view, in this order, where that was drawn for it; may return the argument itself."""
    if draws.jitter_V[view]:
        for number in draws.order_V4[view]:
            pixels_HW3 = jitter(pixels_HW3, JITTERS[number], float(draws.factors_V4[view, number]))
    if draws.grey_V[view]:
        pixels_HW3 = cv2.cvtColor(cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if radius := float(draws.radius_V[view]):
        taps_T = box_taps(radius)
        pixels_HW3 = cv2.sepFilter2D(pixels_HW3, -1, taps_T, taps_T, borderType=cv2.BORDER_REPLICATE)
    if draws.solarise_V[view]:
        pixels_HW3 = cv2.LUT(pixels_HW3, _SOLARISED)
    return pixels_HW3


def jitter(pixels_HW3: Pixels, operation: str, factor: float) -> Pixels:
    """Blend with black, with the mean grey level, rounded as Pillow does, or with the image's own greyscale; or turn the hue."""
    if operation == "saturation":
        return cv2.transform(pixels_HW3, factor * _KEEP_34 + (1 - factor) * _GREY_34)
    if operation == "hue":
        height, width, channels = pixels_HW3.shape
        hsv_HW3 = cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2HSV_FULL)
        # One row of bytes on all rows at once is ten times as fast as adding to every third byte; hues wrap round at 256.
        steps = np.zeros((width, channels), dtype=np.uint8)
        steps[:, 0] = (int(factor * _HUES) + _HUE_OFFSET) % 256
        rows = hsv_HW3.reshape(height, width * channels)
        np.add(rows, steps.reshape(-1), out=rows)
        return cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB_FULL)
    level = 0 if operation == "brightness" else int(cv2.mean(cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.addWeighted(pixels_HW3, factor, pixels_HW3, 0, (1 - factor) * level + _TRUNCATE)


def box_taps(radius: float) -> npt.NDArray[np.float32]:
    """The filter that equals the three box filters by which Pillow blurs: float32 [T], T odd, of sum 1.

    Their variances add up to the square of the radius. A box's whole pixels and the weight of the two at its ends give it a third:
    Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering" (SSVM 2011), which Pillow follows.
    """
    variance = radius * radius / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    box_T = np.ones(2 * whole + 3)
    box_T[[0, -1]] = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    taps_T = np.convolve(np.convolve(box_T, box_T), box_T)
    return (taps_T / taps_T.sum()).astype(np.float32)


# A batch of views by torch. Levels are floats that are whole numbers from 0 to 255 after every operation, as Pillow's are. The host
# knows which views an operation concerns, so that nothing synchronises with a GPU.

_ALMOST = 1e-3  # a sum of float products may fall short of its whole number by so much


def change_batch_colours(levels_B3HW: Tensor, draws: ColourDraws) -> None:
    """Do to each view of a batch, in place, what `change_colours` does to one; its draws have the batch in place of V."""

    def change(concerned_B: npt.NDArray[np.bool_], operation: Callable[..., Tensor], *numbers: npt.NDArray[Any]) -> None:
        index_M = np.flatnonzero(concerned_B)
        if len(index_M):
            given = [queued(torch.from_numpy(values[index_M]).float(), levels_B3HW.device) for values in numbers]
            index = queued(torch.from_numpy(index_M), levels_B3HW.device)
            levels_B3HW[index] = operation(levels_B3HW[index], *given)

    for numbers_B in draws.order_V4.T:
        for number, name in enumerate(JITTERS):
            jitter = functools.partial(_batch_jitter, operation=name)
            change(draws.jitter_V & (numbers_B == number), jitter, draws.factors_V4[:, number])
    change(draws.grey_V, lambda levels_M3HW: _batch_grey(levels_M3HW).expand_as(levels_M3HW))
    filters = [box_taps(radius) for radius in draws.radius_V.tolist()]
    longest = max(map(len, filters))
    change(draws.radius_V > 0, _batch_blur, np.stack([np.pad(taps_T, (longest - len(taps_T)) // 2) for taps_T in filters]))
    change(draws.solarise_V, lambda levels: torch.where(levels < SOLARISE_THRESHOLD, levels, 255 - levels))


def _batch_jitter(levels_M3HW: Tensor, factors_M: Tensor, operation: str) -> Tensor:
    if operation == "hue":
        # Pillow's hues are cut off to one of 255, half a step too low on average, and moved by whole steps.
        return shift_hue(levels_M3HW, ((factors_M * _HUES).trunc() - 0.5) / _HUES).round().clamp(0, 255)
    ground = torch.zeros_like(levels_M3HW[:, :1]) if operation == "brightness" else _batch_grey(levels_M3HW)
    if operation == "contrast":
        ground = ground.mean(dim=(1, 2, 3), keepdim=True).round()
    # Blend, limit and cut off fractions, as Pillow does.
    return (ground + factors_M[:, None, None, None] * (levels_M3HW - ground) + _ALMOST).clamp(0, 255).floor()


def _batch_blur(levels_M3HW: Tensor, taps_MT: Tensor) -> Tensor:
    reach = taps_MT.shape[1] // 2
    for axis, padding in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        padded_M3HW, length = F.pad(levels_M3HW, padding, mode="replicate"), levels_M3HW.shape[axis]
        levels_M3HW = torch.zeros_like(levels_M3HW)
        for tap, weights_M in enumerate(taps_MT.unbind(1)):
            levels_M3HW.addcmul_(padded_M3HW.narrow(axis, tap, length), weights_M[:, None, None, None])
    return levels_M3HW.round_()


def _batch_grey(levels_M3HW: Tensor) -> Tensor:
    """Whole levels [M, 1, H, W]."""
    red, green, blue = (weight * plane for weight, plane in zip(_GREY_WEIGHTS, levels_M3HW.split(1, dim=1), strict=True))
    return (red + green + blue).round()


def shift_hue(images_M3HW: Tensor, shifts_M: Tensor) -> Tensor:
    """Turn the hue of each image by a part of the circle, keeping saturation and value; float RGB, not negative, of any range."""
    red, green, blue = images_M3HW.unbind(1)
    value, largest = images_M3HW.max(1)
    chroma = value - images_M3HW.amin(1)
    divisor = chroma.where(chroma > 0, torch.ones_like(chroma))
    sixths = torch.stack([(green - blue) / divisor, 2 + (blue - red) / divisor, 4 + (red - green) / divisor], dim=1)
    hue_MHW = sixths.gather(1, largest[:, None])[:, 0] + 6 * shifts_M[:, None, None]
    # Each channel falls from the value by the chroma, as a trapezium of the hue.
    offsets_3 = torch.arange(5.0, 0.0, -2.0, dtype=hue_MHW.dtype, device=hue_MHW.device)
    phase = (offsets_3[:, None, None] + hue_MHW[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(phase, 4 - phase).clamp(0, 1)


# Each patch by itself.

PATCH_OPERATIONS = ("jitter", "blur", "sharpness", "posterisation")


def change_each_patch(view_3HW: Tensor, patch_size: int, rng: np.random.Generator) -> Tensor:
    """Brightness and hue, blur, sharpness and posterisation, drawn for each patch by itself, in an order drawn likewise.

    alijavidani/dino 26acb86, branch imagenet100-patch_augmentation, image_to_patches.py and main_dino.py:561-564: of global and local
    views, after crop, flip, jitter and blur, before normalisation. The view is float32 RGB from 0 to 1, its sides multiples of the
    patch size. The sharpness and posterise operations are torchvision's random ones, which act with probability 1/2.
    """
    # [1, 3 P P, M] -> [M, 3, P, P]
    patches_M3PP = F.unfold(view_3HW[None], patch_size, stride=patch_size)[0].T.unflatten(1, (3, patch_size, patch_size))
    order_M4 = rng.random((len(patches_M3PP), len(PATCH_OPERATIONS))).argsort(axis=1)
    for numbers_M in order_M4.T:
        for number, operation in enumerate(PATCH_OPERATIONS):
            if len(chosen := torch.from_numpy(np.flatnonzero(numbers_M == number))):
                patches_M3PP[chosen] = change_patches(operation, patches_M3PP[chosen], rng)
    return F.fold(patches_M3PP.flatten(1).T[None], view_3HW.shape[1:], patch_size, stride=patch_size)[0]


def change_patches(operation: str, patches_M3PP: Tensor, rng: np.random.Generator) -> Tensor:
    """Do one of `PATCH_OPERATIONS` to each patch; sharpening and posterisation to about half of them."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, len(patches_M3PP))).float()

    if operation == "jitter":
        # A factor common to the channels leaves the hue alone, so that only clipping depends on the order of brightness and hue.
        brightened = (patches_M3PP * uniform(0.9, 1.1)[:, None, None, None]).clamp(0, 1)
        return shift_hue(brightened, uniform(-0.1, 0.1))
    if operation == "blur":
        # 5 taps along columns, reflected at the patch's border; the published kernel is 1 pixel wide.
        kernels_MT = torch.softmax(-0.5 * (torch.arange(-2, 3.0) / uniform(0.1, 2.0)[:, None]) ** 2, dim=1)
        padded = F.pad(patches_M3PP, (0, 0, 2, 2), mode="reflect")
        return torch.einsum("mcywt,mt->mcyw", padded.unfold(2, 5, 1), kernels_MT)
    if operation == "sharpness":
        changed = tvf.adjust_sharpness(patches_M3PP, 2.0)
    else:
        changed = tvf.posterize((patches_M3PP * 255).round().to(torch.uint8), 3).float() / 255
    acts_M = torch.from_numpy(rng.random(len(changed)) < 0.5)
    return changed.where(acts_M[:, None, None, None], patches_M3PP)
