"""DINO's augmentation by Pillow and torchvision, with given draws instead of its own.

facebookresearch/dino 7c446df, DataAugmentationDINO: the operations and their order; the draws are ours.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pretrain.data.views import ViewDraws, ViewKind

_JITTER = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def pillow_view(image: Image.Image, kind: ViewKind, draws: ViewDraws, view: int) -> npt.NDArray[np.uint8]:
    """uint8 [size, size, 3]."""
    colours = draws.colours
    *box, flip = draws.boxes_V5[view].tolist()
    cut = F.resized_crop(image, *box, [kind.size, kind.size], InterpolationMode.BICUBIC)
    if flip:
        cut = F.hflip(cut)
    if colours.jitter_V[view]:
        for operation in colours.order_V4[view]:
            cut = _JITTER[operation](cut, float(colours.factors_V4[view, operation]))
    if colours.grey_V[view]:
        cut = F.to_grayscale(cut, num_output_channels=3)
    if colours.radius_V[view]:
        cut = cut.filter(ImageFilter.GaussianBlur(radius=float(colours.radius_V[view])))
    if colours.solarise_V[view]:
        cut = ImageOps.solarize(cut)
    return np.asarray(cut)
