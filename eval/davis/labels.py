"""Between masks of object ids and soft labels on the patch grid.

Shapes: H x W pixels, h x w patches, C channels (background and one per object id).
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eval.davis.masks import Mask


def first_labels(mask: Mask, grid: tuple[int, int], drop_highest_id: bool) -> Tensor:
    """Labels of the first frame from its mask.

    Args:
        mask: Object ids of the first frame, at its original size.
        grid: (h, w).
        drop_highest_id: The published way: reduce the mask by nearest neighbour, then count the ids. Otherwise average the mask over
            each patch, with a channel for every id up to the highest of the whole mask.

    Returns:
        [h, w, C] float32; each position sums to 1.
    """
    h, w = grid
    if drop_highest_id:
        small = np.asarray(Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST))
        return F.one_hot(torch.from_numpy(small.astype(np.int64))).float()
    one_hot_HWC = F.one_hot(torch.from_numpy(mask.astype(np.int64))).float()
    return F.interpolate(one_hot_HWC.permute(2, 0, 1)[None], size=grid, mode="area")[0].permute(1, 2, 0).contiguous()


def label_map(labels_hwC: Tensor, stride: int) -> Tensor:
    """The most likely id of each input pixel.

    Labels are upsampled bilinearly by the stride; each channel is then stretched to [0, 1] over the frame, so that an object that
    has faded still competes with the background (not described in the papers; `norm_mask` in facebookresearch/dino 7c446df).

    Args:
        labels_hwC: Soft labels.
        stride: Input pixels per patch.

    Returns:
        [h*stride, w*stride] uint8 on the labels' device.
    """
    labels_1Chw = labels_hwC.permute(2, 0, 1)[None].contiguous()
    scores_CHW = F.interpolate(labels_1Chw, scale_factor=stride, mode="bilinear", align_corners=False)[0]
    low_C11 = scores_CHW.amin(dim=(1, 2), keepdim=True)
    high_C11 = scores_CHW.amax(dim=(1, 2), keepdim=True)
    stretched_CHW = scores_CHW.sub_(low_C11).div_(high_C11 - low_C11)
    # A channel without contrast: the authors' 0/0 = NaN wins every comparison, unless the channel is empty.
    flat_C11 = torch.where(high_C11 > 0, torch.inf, 0.0)
    levels_CHW = torch.where(high_C11 > low_C11, stretched_CHW, flat_C11)
    return _first_of_the_highest(levels_CHW)


def _first_of_the_highest(levels_CHW: Tensor) -> Tensor:
    """`argmax` over the channels [H, W] uint8, which takes fifty times as long on a CPU."""
    highest_HW = levels_CHW[0].clone()
    ids_HW = torch.zeros(highest_HW.shape, dtype=torch.uint8, device=levels_CHW.device)
    for channel, level_HW in enumerate(levels_CHW[1:], start=1):
        ids_HW.masked_fill_(level_HW > highest_HW, channel)
        torch.maximum(highest_HW, level_HW, out=highest_HW)
    return ids_HW


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resample object ids to (height, width) by nearest neighbour."""
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
