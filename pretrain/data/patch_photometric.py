"""PW-Self's later augmentation: every patch of a view changes its colours and sharpness by itself.

alijavidani/Local_Global_Representation_Learning, branch imagenet100-patch_augmentation, image_to_patches.py: after crop, flip, jitter
and blur, before normalisation, each patch goes through four operations in an order of its own. Their code cuts the patches from the
image as loaded and not from the resized view, which we take for a slip; here they come from the view. Its sharpness and posterise
operations are torchvision's random ones, which act with probability 1/2.

Shapes: H x W pixels, M patches of P x P pixels; values are floats from 0 to 1.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import functional as tvf

BRIGHTNESS = 0.1
HUE = 0.1
BLUR_TAPS = 5  # along columns; the published kernel is 1 pixel wide
BLUR_DEVIATION = (0.1, 2.0)
SHARPNESS = 2.0
SHARPNESS_PROBABILITY = 0.5
POSTERISE_BITS = 3
POSTERISE_PROBABILITY = 0.5


def change_each_patch(view_3HW: Tensor, patch_size: int, rng: np.random.Generator) -> Tensor:
    """Brightness and hue, blur, sharpness and posterisation, drawn for each patch by itself, in an order drawn likewise.

    Args:
        view_3HW: float32 RGB from 0 to 1; both sides multiples of the patch size.
        patch_size: P.
        rng: Source of all draws.

    Returns:
        A new view of the same shape and range.
    """
    _, height, width = view_3HW.shape
    rows, columns = height // patch_size, width // patch_size
    patches = view_3HW.unflatten(2, (columns, patch_size)).unflatten(1, (rows, patch_size))
    # 3 rows P columns P -> (rows columns) 3 P P
    patches_M3PP = patches.permute(1, 3, 0, 2, 4).flatten(0, 1).clone()
    order_M4 = rng.random((len(patches_M3PP), len(_OPERATIONS))).argsort(axis=1)
    for position in range(len(_OPERATIONS)):
        for index, operation in enumerate(_OPERATIONS):
            chosen = torch.from_numpy(np.flatnonzero(order_M4[:, position] == index))
            if len(chosen):
                patches_M3PP[chosen] = operation(patches_M3PP[chosen], rng)
    back = patches_M3PP.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return back.flatten(3, 4).flatten(1, 2)


def shift_hue(patches_M3PP: Tensor, shifts_M: Tensor) -> Tensor:
    """Turn the hue by a part of the circle, keeping saturation and value.

    Args:
        patches_M3PP: float RGB, not negative, of any range and any height and width.
        shifts_M: For each.
    """
    red, green, blue = patches_M3PP.unbind(1)
    value, largest = patches_M3PP.max(1)
    chroma = value - patches_M3PP.amin(1)
    divisor = chroma.where(chroma > 0, torch.ones_like(chroma))
    sixths = torch.stack([(green - blue) / divisor, 2 + (blue - red) / divisor, 4 + (red - green) / divisor], dim=1)
    hue_MPP = sixths.gather(1, largest[:, None])[:, 0] + 6 * shifts_M[:, None, None]
    # Each channel falls from the value by the chroma, as a trapezium of the hue.
    phase = (hue_MPP.new_tensor([5.0, 3.0, 1.0])[None, :, None, None] + hue_MPP[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(phase, 4 - phase).clamp(0, 1)


def _jitter(patches_M3PP: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, then hue: a factor common to the channels leaves the hue alone, so that only clipping depends on their order."""
    count = len(patches_M3PP)
    factors_M111 = _draw(rng, 1 - BRIGHTNESS, 1 + BRIGHTNESS, count)[:, None, None, None]
    return shift_hue((patches_M3PP * factors_M111).clamp(0, 1), _draw(rng, -HUE, HUE, count))


def _blur(patches_M3PP: Tensor, rng: np.random.Generator) -> Tensor:
    """A Gaussian along columns, reflected at the patch's border."""
    radius = BLUR_TAPS // 2
    deviations_M = _draw(rng, *BLUR_DEVIATION, len(patches_M3PP))
    offsets_T = torch.arange(-radius, radius + 1.0)
    kernels_MT = torch.softmax(-0.5 * (offsets_T / deviations_M[:, None]) ** 2, dim=1)
    padded = F.pad(patches_M3PP, (0, 0, radius, radius), mode="reflect")
    return torch.einsum("mcywt,mt->mcyw", padded.unfold(2, BLUR_TAPS, 1), kernels_MT)


def _sharpen(patches_M3PP: Tensor, rng: np.random.Generator) -> Tensor:
    sharpened = tvf.adjust_sharpness(patches_M3PP, SHARPNESS)
    return _sometimes(SHARPNESS_PROBABILITY, sharpened, patches_M3PP, rng)


def _posterise(patches_M3PP: Tensor, rng: np.random.Generator) -> Tensor:
    posterised = tvf.posterize((patches_M3PP * 255).round().to(torch.uint8), POSTERISE_BITS).float() / 255
    return _sometimes(POSTERISE_PROBABILITY, posterised, patches_M3PP, rng)


def _sometimes(probability: float, changed: Tensor, unchanged: Tensor, rng: np.random.Generator) -> Tensor:
    acts_M = torch.from_numpy(rng.random(len(changed)) < probability)
    return changed.where(acts_M[:, None, None, None], unchanged)


def _draw(rng: np.random.Generator, low: float, high: float, count: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, count)).float()


_OPERATIONS: tuple[Callable[[Tensor, np.random.Generator], Tensor], ...] = (_jitter, _blur, _sharpen, _posterise)
