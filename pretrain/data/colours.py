"""Colour jitter, greyscale, blur and solarisation of one small uint8 picture, as Pillow does them.

What DINO's pipeline asks of torchvision and Pillow (facebookresearch/dino 7c446df, DataAugmentationDINO), by OpenCV: several times
faster, and equal up to rounding. How far results differ from Pillow's is held by tests: solarisation nowhere; brightness, contrast,
saturation and grey by one level of 255; hue, which Pillow rounds to 8 bits on the way, by less on average than torchvision's own
operation on tensors; blur by a fraction of a level, more within 6 pixels of the border, which Pillow extends before each of its three
box filters and this before the one filter that equals them.

Shapes: H x W pixels, T taps.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from pretrain.data.draws import ColourDraws

Pixels = npt.NDArray[np.uint8]

SOLARIZE_THRESHOLD = 128

_TRUNCATE = -0.499  # rounding after this equals Pillow's cutting off of fractions
_KEEP_34 = np.column_stack([np.eye(3), [_TRUNCATE] * 3])
_GREY_34 = np.array([[0.299, 0.587, 0.114, _TRUNCATE]] * 3)  # ITU-R 601, Pillow's
_SOLARISED = np.where(np.arange(256) < SOLARIZE_THRESHOLD, np.arange(256), 255 - np.arange(256)).astype(np.uint8)
_BOX_PASSES = 3
_HUES = 255  # Pillow's, cut off; OpenCV writes the nearest of 256, one too high then, and reads one of 255
_HUE_OFFSET = -1


def change_colours(pixels_HW3: Pixels, draws: ColourDraws, view: int) -> Pixels:
    """Jitter, greyscale, blur, solarisation, in this order, where they were drawn.

    Args:
        pixels_HW3: uint8 RGB.
        draws: Of all views of an image.
        view: Which of them this is.

    Returns:
        uint8 RGB of the same shape; may be the argument itself.
    """
    if draws.jitter_V[view]:
        for operation in draws.order_V4[view]:
            pixels_HW3 = _JITTER[operation](pixels_HW3, float(draws.factors_V4[view, operation]))
    if draws.grey_V[view]:
        pixels_HW3 = cv2.cvtColor(_grey(pixels_HW3), cv2.COLOR_GRAY2RGB)
    if radius := float(draws.radius_V[view]):
        pixels_HW3 = blur(pixels_HW3, radius)
    if draws.solarise_V[view]:
        pixels_HW3 = solarise(pixels_HW3)
    return pixels_HW3


def change_brightness(pixels_HW3: Pixels, factor: float) -> Pixels:
    """Blend with black."""
    return _blend_with_level(pixels_HW3, 0, factor)


def change_contrast(pixels_HW3: Pixels, factor: float) -> Pixels:
    """Blend with the mean grey level of the picture, rounded as Pillow does."""
    return _blend_with_level(pixels_HW3, int(cv2.mean(_grey(pixels_HW3))[0] + 0.5), factor)


def change_saturation(pixels_HW3: Pixels, factor: float) -> Pixels:
    """Blend with the picture's own greyscale."""
    return cv2.transform(pixels_HW3, factor * _KEEP_34 + (1 - factor) * _GREY_34)


def shift_hue(pixels_HW3: Pixels, shift: float) -> Pixels:
    """Turn the hue by a part of the circle, on 8 bits as torchvision does with Pillow."""
    height, width, channels = pixels_HW3.shape
    hsv_HW3 = cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2HSV_FULL)
    # One row of bytes on all rows at once is ten times as fast as adding to every third byte; hues wrap round at 256.
    steps = np.zeros((width, channels), dtype=np.uint8)
    steps[:, 0] = (int(shift * _HUES) + _HUE_OFFSET) % 256
    rows = hsv_HW3.reshape(height, width * channels)
    np.add(rows, steps.reshape(-1), out=rows)
    return cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB_FULL)


def blur(pixels_HW3: Pixels, radius: float) -> Pixels:
    """Pillow's GaussianBlur: three box filters whose variances add up to the square of the radius, as one filter."""
    taps_T = box_taps(radius)
    return cv2.sepFilter2D(pixels_HW3, -1, taps_T, taps_T, borderType=cv2.BORDER_REPLICATE)


def solarise(pixels_HW3: Pixels) -> Pixels:
    """Invert the levels from 128 on."""
    return cv2.LUT(pixels_HW3, _SOLARISED)


def box_taps(radius: float) -> npt.NDArray[np.float32]:
    """The filter that equals Pillow's three box filters for a Gaussian blur: float32 [T], T odd, of sum 1.

    A box's whole pixels and the weight of the two at its ends give it a third of the variance: Gwosdek et al., "Theoretical
    Foundations of Gaussian Convolution by Extended Box Filtering" (SSVM 2011), which Pillow follows.
    """
    variance = radius * radius / _BOX_PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    end = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box_T = np.ones(2 * whole + 3)
    box_T[[0, -1]] = end
    taps_T = np.convolve(np.convolve(box_T, box_T), box_T)
    return (taps_T / taps_T.sum()).astype(np.float32)


def _blend_with_level(pixels_HW3: Pixels, level: int, factor: float) -> Pixels:
    return cv2.addWeighted(pixels_HW3, factor, pixels_HW3, 0, (1 - factor) * level + _TRUNCATE)


def _grey(pixels_HW3: Pixels) -> Pixels:
    return cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY)


_JITTER = (change_brightness, change_contrast, change_saturation, shift_hue)
