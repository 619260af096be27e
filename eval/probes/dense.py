"""Logits of patches against label maps: the loss, whole images by sliding windows, predicted classes.

Shapes: B images, K classes, h x w patches, H x W pixels, s rows of them. Boxes are (top, bottom, left, right), half-open.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from eval.probes.data import VOID

Box = tuple[int, int, int, int]

_CELLS_AT_ONCE = (1 << 26, 1 << 19)  # classes x pixels of the loss, on a GPU and on a CPU
_CLASSES_AT_ONCE = 16  # that are enlarged to a label map's size


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [B, C, h, w] at another (height, width), by bilinear interpolation without aligned corners."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradient in one go over a few rows of an image at a time, which stay in the processor's cache.

    The enlarged logits of a batch would take gigabytes, for each head of a sweep. Enlarging is a product with a matrix for the
    columns and one for the rows, and so is its gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits_BKhw: Tensor, labels_BHW: Tensor, divisor: float) -> Tensor:
        (_, classes, h, w), (_, height, width) = logits_BKhw.shape, labels_BHW.shape
        at_once = max(1, _CELLS_AT_ONCE[logits_BKhw.device.type == "cpu"] // (classes * width))
        columns_Ww = _enlarging(w, width, logits_BKhw.device, logits_BKhw.dtype)
        strips = _strips(h, height, at_once, logits_BKhw.device, logits_BKhw.dtype)
        total = logits_BKhw.new_zeros((), dtype=torch.float64)
        gradient_BKhw = torch.empty_like(logits_BKhw)
        for index, labels_HW in enumerate(labels_BHW):
            wide_hKW = logits_BKhw[index].transpose(0, 1) @ columns_Ww.T
            gradient_hKW = torch.zeros_like(wide_hKW)
            for labels_sW, (used, rows_sh) in zip(labels_HW.split(at_once), strips, strict=True):
                logits_sKW = (rows_sh @ wide_hKW[used].flatten(1)).unflatten(1, (classes, width))
                loss, gradient_sKW = _loss_and_gradient(logits_sKW, labels_sW)
                total += loss
                gradient_hKW[used] += (rows_sh.T @ gradient_sKW.flatten(1)).unflatten(1, (classes, width))
            gradient_BKhw[index] = (gradient_hKW @ columns_Ww).transpose(0, 1)
        ctx.save_for_backward(gradient_BKhw.div_(divisor))
        return (total / divisor).to(logits_BKhw.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BKhw,) = ctx.saved_tensors
        return gradients[0] * gradient_BKhw, None, None


def _loss_and_gradient(logits_sKW: Tensor, labels_sW: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the labelled pixels, and its gradient, which takes the place of the logits."""
    labelled_sW = labels_sW != VOID
    places_s1W = torch.where(labelled_sW, labels_sW, 0).long()[:, None]
    logits_sKW -= logits_sKW.amax(dim=1, keepdim=True)
    right_sW = logits_sKW.gather(1, places_s1W)[:, 0]
    sums_sW = logits_sKW.exp_().sum(dim=1)
    loss = torch.where(labelled_sW, sums_sW.log() - right_sW, 0).sum(dtype=torch.float64)
    factors_sW = labelled_sW / sums_sW
    logits_sKW *= factors_sW[:, None]
    logits_sKW.scatter_add_(1, places_s1W, -labelled_sW[:, None].to(logits_sKW.dtype))
    return loss, logits_sKW


# Kept for all heads and updates: a copy to a GPU would wait for it each time.
@lru_cache(maxsize=8)
def _enlarging(length: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix [size, length] that enlarges a row of numbers as `enlarged` does."""
    matrix = F.interpolate(torch.eye(length)[None], size, mode="linear", align_corners=False)[0].T.contiguous()
    return matrix.to(device, dtype)


@lru_cache(maxsize=8)
def _strips(length: int, size: int, rows: int, device: torch.device, dtype: torch.dtype) -> list[tuple[slice, Tensor]]:
    """`_enlarging` by so many rows at a time: the part of them that has numbers other than 0, and where it is."""
    strips = []
    for rows_sh in _enlarging(length, size, torch.device("cpu"), torch.float32).split(rows):
        places = rows_sh.any(dim=0).nonzero().flatten()
        used = slice(int(places[0]), int(places[-1]) + 1)
        strips.append((used, rows_sh[:, used].to(device, dtype)))
    return strips


def cross_entropy(logits_BKhw: Tensor, labels_BHW: Tensor, per_labelled: bool) -> Tensor:
    """Sum over the labelled pixels of the logits enlarged to the labels, divided by the number of all pixels, or of those."""
    count = max(1, int((labels_BHW != VOID).sum())) if per_labelled else labels_BHW.numel()
    loss: Tensor = _CrossEntropy.apply(logits_BKhw, labels_BHW, float(count))
    return loss


def window_boxes(height: int, width: int, crop: int, stride: int, smaller: bool = False) -> list[Box]:
    """The windows over an image, row by row; the last ones of a row and of a column are moved back inside.

    `smaller`, as DINOv3 does: an image that is smaller than a window is cut into squares of its short side, with the same stride.
    ValueError if the windows leave pixels out, which these can.
    """
    if smaller and height < crop and width < crop:
        crop = min(height, width)
    boxes = []
    covered = torch.zeros(height, width, dtype=torch.bool)
    for row in range(max(height - crop + stride - 1, 0) // stride + 1):
        for column in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + crop, height), min(column * stride + crop, width)
            top, left = max(bottom - crop, 0), max(right - crop, 0)
            boxes.append((top, bottom, left, right))
            covered[top:bottom, left:right] = True
    if not bool(covered.all()):
        raise ValueError(
            f"windows of {crop} pixels every {stride} leave out a part of an image of {height} x {width}; give a larger size"
        )
    return boxes


def joined_windows(logits: Sequence[Tensor], boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    """The mean [1, K, H, W] of the windows' logits, each [1, K, h, w] and enlarged to its box."""
    total = logits[0].new_zeros(1, logits[0].shape[1], *size)
    count = logits[0].new_zeros(1, 1, *size)
    for logits_1Khw, (top, bottom, left, right) in zip(logits, boxes, strict=True):
        total[..., top:bottom, left:right] += enlarged(logits_1Khw, (bottom - top, right - left))
        count[..., top:bottom, left:right] += 1
    return total / count


def predicted_classes(logits_1Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of the largest logit after enlarging to (height, width), the first of equal ones; some classes at a time."""
    best = logits_1Khw.new_full(size, -math.inf)
    classes = torch.zeros(size, dtype=torch.long, device=logits_1Khw.device)
    for start in range(0, logits_1Khw.shape[1], _CLASSES_AT_ONCE):
        values, places = enlarged(logits_1Khw[:, start : start + _CLASSES_AT_ONCE], size)[0].max(dim=0)
        larger = values > best
        best, classes = torch.where(larger, values, best), torch.where(larger, places + start, classes)
    return classes
