"""Metrics of a depth map, image by image.

Shapes: N images, H x W pixels. Depth is in metres.
"""

import torch
from torch import Tensor

from eval.depth.data import scaled_box
from eval.depth.protocol import Rules

UNITS = {
    "a1": "fraction",
    "a2": "fraction",
    "a3": "fraction",
    "abs_rel": "fraction",
    "rmse": "m",
    "log_10": "log10",
    "rmse_log": "log",
    "silog": "100 log",
    "sq_rel": "m",
    "mae": "m",
}
HIGHER_IS_BETTER = ("a1", "a2", "a3")
"""The share of pixels that are off by a factor below 1.25, its square and its cube; all others are errors."""

_FACTOR = 1.25


def counted_pixels(truth_HW: Tensor, rules: Rules) -> Tensor:
    """Where the truth counts, bool [H, W]: inside the protocol's box and, strictly, inside its range."""
    nearest, farthest = rules.depth_range
    inside_HW = torch.zeros_like(truth_HW, dtype=torch.bool)
    top, bottom, left, right = scaled_box(rules.test_box, *truth_HW.shape)
    inside_HW[top:bottom, left:right] = True
    return inside_HW & (truth_HW > nearest) & (truth_HW < farthest)


def image_metrics(depth_HW: Tensor, truth_HW: Tensor, counted_HW: Tensor, rules: Rules) -> dict[str, float]:
    """Means over the pixels that count; where none does, NaN, and for silog 0, as published."""
    depth, truth = depth_HW.clamp(*rules.depth_range)[counted_HW], truth_HW[counted_HW]
    factor = torch.maximum(depth / truth, truth / depth)
    difference, logarithm = truth - depth, truth.log() - depth.log()
    means = {f"a{power}": (factor < _FACTOR**power).float().mean() for power in (1, 2, 3)}
    silog = (logarithm.square().mean() - logarithm.mean().square()).clamp(min=0).sqrt() * 100
    means |= {
        "abs_rel": (difference.abs() / truth).mean(),
        "rmse": difference.square().mean().sqrt(),
        "log_10": (truth.log10() - depth.log10()).abs().mean(),
        "rmse_log": logarithm.square().mean().sqrt(),
        "silog": silog.nan_to_num(nan=0.0),
        "sq_rel": (difference.square() / truth).mean(),
        "mae": difference.abs().mean(),
    }
    return {name: float(value) for name, value in means.items()}
