"""DINO's augmentation by Pillow and torchvision, with given draws instead of its own.

facebookresearch/dino 7c446df, DataAugmentationDINO: the operations and their order; the draws are ours.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pretrain.data.colours import ColourDraws
from pretrain.data.views import ViewDraws, ViewKind

JITTER = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def pillow_view(image: Image.Image, kind: ViewKind, draws: ViewDraws, view: int) -> npt.NDArray[np.uint8]:
    """uint8 [size, size, 3]."""
    *box, flip = draws.boxes_V5[view].tolist()
    cut = F.resized_crop(image, *box, [kind.size, kind.size], InterpolationMode(kind.interpolation))
    return pillow_colours(F.hflip(cut) if flip else cut, draws.colours, view)


def pillow_colours(image: Image.Image, draws: ColourDraws, view: int) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]."""
    if draws.jitter_V[view]:
        for operation in draws.order_V4[view]:
            image = JITTER[operation](image, float(draws.factors_V4[view, operation]))
    if draws.grey_V[view]:
        image = F.to_grayscale(image, num_output_channels=3)
    if draws.radius_V[view]:
        image = image.filter(ImageFilter.GaussianBlur(radius=float(draws.radius_V[view])))
    if draws.solarise_V[view]:
        image = ImageOps.solarize(image)
    return np.asarray(image)
