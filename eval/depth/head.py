"""The head on frozen features, its loss, and what it predicts for whole images.

Shapes: B images, D channels, K bins, h x w patches, H x W pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from eval.depth.protocol import Rules
from eval.probes.dense import enlarged
from eval.probes.features import centre_pad
from eval.probes.heads import LinearHead


def make_head(channels: int, rules: Rules, seed: int) -> LinearHead:
    return LinearHead(channels, rules.bins, rules.batch_norm, rules.weight_deviation, seed)


def expected_depth(logits_BKhw: Tensor, rules: Rules) -> Tensor:
    """The mean of the bins' depths [B, 1, h, w], by weights that are linear in the positive logits."""
    weights_BKhw = logits_BKhw.relu() + rules.least_bin_weight
    weights_BKhw = weights_BKhw / weights_BKhw.sum(dim=1, keepdim=True)
    bins_K = torch.linspace(*rules.depth_range, logits_BKhw.shape[1], device=logits_BKhw.device)
    return torch.einsum("bkhw,k->bhw", weights_BKhw, bins_K)[:, None]


def log_error_loss(depth_B1HW: Tensor, truth_B1HW: Tensor, with_variance: bool, rules: Rules) -> Tensor:
    """Square root of variance and weighted squared mean of the log error, where the truth is above 0.

    NaN where fewer than two pixels have a truth and the variance counts.
    """
    measured = truth_B1HW > 0
    logarithms = [torch.log(depths[measured] + rules.loss_offset) for depths in (depth_B1HW, truth_B1HW)]
    errors = logarithms[0] - logarithms[1]
    squared = rules.loss_mean_weight * errors.mean() ** 2
    if with_variance:
        squared = squared + errors.var()
    return squared.sqrt() if squared > 0 else squared  # the gradient of a root is infinite at 0


def batch_loss(logits_BKhw: Tensor, truth_B1HW: Tensor, with_variance: bool, rules: Rules) -> Tensor:
    """The mean over groups of images of their losses, as of processes that each have one group."""
    depth_B1HW = enlarged(expected_depth(logits_BKhw, rules), truth_B1HW.shape[-2:])
    groups = zip(depth_B1HW.split(rules.images_per_loss), truth_B1HW.split(rules.images_per_loss), strict=True)
    return torch.stack([log_error_loss(depths, truth, with_variance, rules) for depths, truth in groups]).mean()


def predict(estimate: Callable[[Tensor], Tensor], image_13HW: Tensor, multiple: int, flip: bool) -> Tensor:
    """Depth [1, 1, h, w] of a normalised image on the patch grid, with `flip` the mean with its mirror image's.

    `estimate` gives the depth [1, 1, h, w] of an image of whole patches. The padding to these is not cut off: what is predicted for
    it is squeezed onto the image with the rest, as published.
    """
    depth_11hw = estimate(centre_pad(image_13HW, multiple))
    if not flip:
        return depth_11hw
    mirrored_11hw = estimate(centre_pad(image_13HW.flip(-1), multiple)).flip(-1)
    return (depth_11hw + mirrored_11hw) / 2
