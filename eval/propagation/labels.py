"""From the first frame's mask to labels on the grid of patches, and from labels to masks, by each protocol's rules.

Shapes: H x W pixels, h x w patches, C channels of a label.
"""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.propagation.masks import Mask, PALETTE_256x3, resize_mask
from eval.propagation.protocol import Rules


def channel_ids(mask: Mask, rules: Rules) -> Mask:
    """The object id of each channel of the labels, at least; uint8.

    For `bilinear` those in the mask by the blue, green and red of their colours, the order in which CropMAE's code meets them: of
    equal channels, the first one wins.
    """
    if rules.first_labels != "bilinear":
        return np.arange(256, dtype=np.uint8)
    present = np.unique(mask)
    return present[np.lexsort(PALETTE_256x3[present].T)]


def first_labels(
    mask: Mask, grid: tuple[int, int], input_size: tuple[int, int], rules: Rules, ids: Mask | None = None
) -> Tensor:
    """Labels [h, w, C] float32 of the first frame from its mask at its original size; each position sums to 1.

    `input_size` is the network's (height, width). `nearest` counts the ids on the grid; `mean` and `nearest, centred` have a channel
    for every id up to the highest of the whole mask, `bilinear` for `ids`, by default those in the mask.
    """
    if rules.first_labels == "nearest":
        return F.one_hot(torch.from_numpy(resize_mask(mask, grid).astype(np.int64))).float()
    if rules.first_labels == "bilinear":
        ids_HW = cv2.resize(mask, input_size[::-1], interpolation=cv2.INTER_NEAREST)
        one_hot_HWC = torch.from_numpy(ids_HW[..., None] == (channel_ids(mask, rules) if ids is None else ids)).float()
    else:
        one_hot_HWC = F.one_hot(torch.from_numpy(mask.astype(np.int64))).float()
    # Bilinear without antialiasing: where a patch has an even side, the mean of its four central pixels.
    mode = {"mean": "area", "bilinear": "bilinear", "nearest, centred": "nearest-exact"}[rules.first_labels]
    return F.interpolate(one_hot_HWC.permute(2, 0, 1)[None], size=grid, mode=mode)[0].permute(1, 2, 0).contiguous()


def with_channels(labels_hwC: Tensor, masks: Iterable[Mask]) -> Tensor:
    """Labels of one mask with empty channels for the objects of all, up to the highest id, where they do not have them yet."""
    missing = 1 + max(int(mask.max()) for mask in masks) - labels_hwC.shape[-1]
    return F.pad(labels_hwC, (0, max(0, missing)))


def add_labels(labels_hwC: Tensor, given_hwC: Tensor) -> Tensor:
    """Labels in which objects that begin in a frame take their places, by their own labels."""
    objects_hwC = torch.cat((torch.zeros_like(given_hwC[..., :1]), given_hwC[..., 1:]), dim=-1)
    return labels_hwC * (1 - objects_hwC.sum(-1, keepdim=True)) + objects_hwC


@torch.inference_mode()
def compete(labels_hwC: Tensor, rules: Rules, stride: int, mask_size: tuple[int, int]) -> Tensor:
    """What the device has to do with a frame's labels before `to_mask` on the host; it does not synchronise with a GPU.

    `bilinear, stretched`: the ids of input pixels [h*stride, w*stride] uint8. `nearest, stretched`: those of the mask's pixels. Each
    channel is stretched to [0, 1] over the frame, so that an object that has faded still competes with the background (`norm_mask` in
    DINO's script; the papers do not describe it). `bilinear`: the labels themselves, which are smaller than ids would be.
    """
    if rules.output == "bilinear":
        return labels_hwC
    labels_1Chw = labels_hwC.permute(2, 0, 1)[None].contiguous()
    if rules.output == "nearest, stretched":
        scores_CHW = F.interpolate(labels_1Chw, size=mask_size, mode="nearest")[0]
    else:
        scores_CHW = F.interpolate(labels_1Chw, scale_factor=stride, mode="bilinear", align_corners=False)[0]
    low_C11 = scores_CHW.amin(dim=(1, 2), keepdim=True)
    high_C11 = scores_CHW.amax(dim=(1, 2), keepdim=True)
    stretched_CHW = scores_CHW.sub_(low_C11).div_(high_C11 - low_C11)
    # A channel without contrast: DINO's 0/0 = NaN wins every comparison, unless the channel is empty; DINOv3 makes 0 of it.
    wins_C11 = (high_C11 > 0) & (rules.output != "nearest, stretched")
    flat_C11 = torch.where(wins_C11, torch.inf, 0.0)
    levels_CHW = torch.where(high_C11 > low_C11, stretched_CHW, flat_C11)
    # `max` names the first of equal channels, as `argmax` does, which takes eight times as long on a CPU.
    return levels_CHW.max(dim=0).indices.to(torch.uint8)


def to_mask(competed: Tensor, rules: Rules, ids: Mask, input_size: tuple[int, int], mask_size: tuple[int, int]) -> Mask:
    """A frame's mask at its size (height, width) from what `compete` gave; `ids` as `channel_ids`."""
    values = competed.cpu().numpy()
    if rules.output == "bilinear, stretched":
        return resize_mask(values, mask_size)
    if rules.output == "nearest, stretched":
        return values
    # OpenCV's own arithmetic, since channels of 0 and 1 that meet half-way are equal but for the last bit.
    channels = (cv2.resize(values[:, :, channel], input_size[::-1]) for channel in range(values.shape[2]))
    highest_HW = next(channels)
    winner_HW = np.full(input_size, ids[0])
    for object_id, scores_HW in zip(ids[1:], channels, strict=False):
        winner_HW[scores_HW > highest_HW] = object_id
        np.maximum(highest_HW, scores_HW, out=highest_HW)
    return cv2.resize(winner_HW, mask_size[::-1], interpolation=cv2.INTER_NEAREST)
