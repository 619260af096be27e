"""The same colour operations as `pretrain.data.colours`, for a batch of views at once and on any device.

Each view has draws of its own. Levels are floats that are whole numbers from 0 to 255 after every operation, as Pillow's are; within
an operation nothing is rounded. Tests hold how far results are from those of one view. Nothing here waits for the device: which views
an operation concerns is known on the host.

Shapes: B views, H x W pixels, M views that an operation concerns, T taps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data.colours import SOLARIZE_THRESHOLD, box_taps
from pretrain.data.draws import ColourDraws
from pretrain.data.patch_photometric import shift_hue

_GREY_WEIGHTS = (0.299, 0.587, 0.114)
_WHITE = 255
_ALMOST = 1e-3  # a sum of float products may fall short of its whole number by so much


def stack_draws(draws: Sequence[ColourDraws], view: int) -> ColourDraws:
    """The draws of the same view of several images.

    Args:
        draws: Of all views of each image.
        view: Which view.
    """
    return ColourDraws(*(np.stack([values[view] for values in fields]) for fields in zip(*draws, strict=True)))


def change_batch_colours(levels_B3HW: Tensor, draws: ColourDraws) -> None:
    """Jitter, greyscale, blur, solarisation, in this order, where they were drawn; in place.

    Args:
        levels_B3HW: float32 RGB, whole numbers from 0 to 255.
        draws: Of these views.
    """
    for place in range(draws.order_V4.shape[1]):
        for number, operation in enumerate(_JITTER):
            views = np.flatnonzero(draws.jitter_V & (draws.order_V4[:, place] == number))
            _change(levels_B3HW, views, operation, draws.factors_V4[views, number])
    _change(levels_B3HW, np.flatnonzero(draws.grey_V), _drop_colours)
    taps = [box_taps(radius) if radius else np.empty(0, dtype=np.float32) for radius in draws.radius_V.tolist()]
    widths_V = np.array([len(values) for values in taps])
    for width in sorted(set(widths_V.tolist()) - {0}):
        views = np.flatnonzero(widths_V == width)
        _change(levels_B3HW, views, _blur, np.stack([taps[view] for view in views]))
    _change(levels_B3HW, np.flatnonzero(draws.solarise_V), _solarise)


def _change(
    levels_B3HW: Tensor, views_M: npt.NDArray[np.int64], operation: Callable[..., Tensor], *numbers: npt.NDArray[np.floating]
) -> None:
    """Change some of the views by an operation, with numbers for each of them."""
    if len(views_M):
        device = levels_B3HW.device
        index_M = torch.from_numpy(views_M).to(device)
        arguments = [torch.from_numpy(values).to(device, torch.float32) for values in numbers]
        levels_B3HW[index_M] = operation(levels_B3HW[index_M], *arguments)


def _brightness(levels_M3HW: Tensor, factors_M: Tensor) -> Tensor:
    return _cut_off(levels_M3HW * _per_view(factors_M))


def _contrast(levels_M3HW: Tensor, factors_M: Tensor) -> Tensor:
    means_M = _grey(levels_M3HW).round().mean(dim=(1, 2, 3)).round()
    return _blend(_per_view(means_M), levels_M3HW, factors_M)


def _saturation(levels_M3HW: Tensor, factors_M: Tensor) -> Tensor:
    return _blend(_grey(levels_M3HW).round(), levels_M3HW, factors_M)


def _hue(levels_M3HW: Tensor, shifts_M: Tensor) -> Tensor:
    # Pillow's hues are cut off to one of 255, half a step too low on average, and moved by whole steps.
    return shift_hue(levels_M3HW, ((shifts_M * 255).trunc() - 0.5) / 255).round().clamp(0, _WHITE)


def _drop_colours(levels_M3HW: Tensor) -> Tensor:
    return _grey(levels_M3HW).round().expand_as(levels_M3HW)


def _blur(levels_M3HW: Tensor, taps_MT: Tensor) -> Tensor:
    """The filter of each view along rows, then along columns; the border pixels go on outwards."""
    reach = taps_MT.shape[1] // 2
    for axis, padding in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        padded_M3HW = F.pad(levels_M3HW, padding, mode="replicate")
        length = levels_M3HW.shape[axis]
        levels_M3HW = torch.zeros_like(levels_M3HW)
        for tap, weights_M in enumerate(taps_MT.unbind(1)):
            levels_M3HW.addcmul_(padded_M3HW.narrow(axis, tap, length), _per_view(weights_M))
    return levels_M3HW.round_()


def _solarise(levels_M3HW: Tensor) -> Tensor:
    return torch.where(levels_M3HW < SOLARIZE_THRESHOLD, levels_M3HW, _WHITE - levels_M3HW)


def _grey(levels_M3HW: Tensor) -> Tensor:
    """[M, 1, H, W]."""
    red, green, blue = (weight * channel for weight, channel in zip(_GREY_WEIGHTS, levels_M3HW.split(1, dim=1), strict=True))
    return red + green + blue


def _blend(ground: Tensor, levels_M3HW: Tensor, factors_M: Tensor) -> Tensor:
    return _cut_off(ground + _per_view(factors_M) * (levels_M3HW - ground))


def _cut_off(levels_M3HW: Tensor) -> Tensor:
    """Limit and cut off fractions, as Pillow does after blending."""
    return (levels_M3HW + _ALMOST).clamp(0, _WHITE).floor()


def _per_view(numbers_M: Tensor) -> Tensor:
    return numbers_M[:, None, None, None]


_JITTER = (_brightness, _contrast, _saturation, _hue)
