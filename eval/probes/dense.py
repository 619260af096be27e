"""Logits of patches against label maps: the loss, whole images by sliding windows, predicted classes.

Shapes: B images, K classes, h x w patches, H x W pixels. Boxes are (top, bottom, left, right), half-open.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from eval.probes.data import VOID

Box = tuple[int, int, int, int]

_CLASSES_AT_ONCE = 16  # that are enlarged to a label map's size


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [B, C, h, w] at another (height, width), by bilinear interpolation without aligned corners."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


class _CrossEntropy(torch.autograd.Function):
    """Image by image, and the gradient at once: the enlarged logits of a batch would take gigabytes, for each head of a sweep."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits_BKhw: Tensor, labels_BHW: Tensor, divisor: float) -> Tensor:
        total = logits_BKhw.new_zeros(())
        gradient_BKhw = torch.empty_like(logits_BKhw)
        for index, labels_HW in enumerate(labels_BHW):
            with torch.enable_grad():
                logits_1Khw = logits_BKhw[index : index + 1].detach().requires_grad_()
                large_1KHW = enlarged(logits_1Khw, labels_HW.shape)
                loss = F.cross_entropy(large_1KHW, labels_HW[None].long(), ignore_index=VOID, reduction="sum") / divisor
            gradient_BKhw[index : index + 1] = torch.autograd.grad(loss, logits_1Khw)[0]
            total += loss.detach()
        ctx.save_for_backward(gradient_BKhw)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BKhw,) = ctx.saved_tensors
        return gradients[0] * gradient_BKhw, None, None


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
