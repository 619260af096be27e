"""Label propagation through one video: each frame takes its labels from the most similar patches of the frames before it.

The authors compare every patch with every patch of every context frame, multiply by an (hw) x (hw) mask and sort the result. Only the
(2r+1)^2 neighbours in each frame can count, so the target grid is cut into strips of columns and these into tiles, and a tile is
compared with the part of the context frames that its patches can reach. What a strip can reach is copied once, row by row of all
frames, so that each of its tiles finds its part in one piece.

Source: facebookresearch/dino 7c446df, eval_video_segmentation.py.

Shapes: H x W pixels, h x w patches, D channels of a feature, C channels of a label (background and one per object id), M context
frames; T = r*c target patches of a tile, s rows and t columns of a context frame within its reach, S = s*M*t.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import full_float32
from eval.propagation.features import FeatureExtractor
from eval.propagation.masks import Mask, resize_mask
from eval.propagation.protocol import PropagationSettings

# Rows and columns of a tile: small ones waste fewer comparisons, large ones multiply faster. Chosen at 30 x 52 and 60 x 104.
TILE = (10, 13)


@torch.inference_mode()
def propagate_sequence(
    images: Iterable[Tensor], first_mask: Mask, extract: FeatureExtractor, settings: PropagationSettings
) -> Iterator[Tensor]:
    """Masks of all frames of a sequence but the first: object ids [H, W] uint8 at the network's input size, on the device.

    It does not synchronise with the GPU: later frames are queued while earlier ones run. The images are of one size, as `read_frame`
    gives them; `first_mask` has the object ids of the first at its original size.
    """
    propagator, remaining = None, iter(images)
    for first in remaining:
        # The images that go through the network together.
        group = [first, *islice(remaining, extract.frames_at_once(*first.shape[1:]) - 1)]
        for features_hwD in extract(torch.stack([image.to(extract.device, non_blocking=True) for image in group])):
            if propagator is None:
                grid = (features_hwD.shape[0], features_hwD.shape[1])
                labels_hwC = first_labels(first_mask, grid, settings.quirks.drop_highest_id)
                propagator = LabelPropagator(features_hwD, labels_hwC.to(features_hwD.device), settings)
            else:
                yield label_map(propagator.step(features_hwD), extract.stride)


def first_labels(mask: Mask, grid: tuple[int, int], drop_highest_id: bool) -> Tensor:
    """Labels [h, w, C] float32 of the first frame from its mask at its original size; each position sums to 1.

    `drop_highest_id` is the published way: reduce the mask by nearest neighbour, then count the ids. Otherwise average the mask over
    each patch, with a channel for every id up to the highest of the whole mask.
    """
    if drop_highest_id:
        return F.one_hot(torch.from_numpy(resize_mask(mask, grid).astype(np.int64))).float()
    one_hot_HWC = F.one_hot(torch.from_numpy(mask.astype(np.int64))).float()
    return F.interpolate(one_hot_HWC.permute(2, 0, 1)[None], size=grid, mode="area")[0].permute(1, 2, 0).contiguous()


class LabelPropagator:
    """Carries soft labels from frame to frame; remembers the first frame and the last `n_last_frames`."""

    def __init__(self, features_hwD: Tensor, labels_hwC: Tensor, settings: PropagationSettings) -> None:
        """Start at the first frame, by its unit-length features and its labels."""
        self.settings = settings
        frames = 1 + settings.n_last_frames
        self._features_MhwD = features_hwD.new_empty(frames, *features_hwD.shape)
        self._labels_MhwC = labels_hwC.new_empty(frames, *labels_hwC.shape)
        self._features_MhwD[0], self._labels_MhwC[0] = features_hwD, labels_hwC
        self._steps = 0

    def step(self, features_hwD: Tensor) -> Tensor:
        """Soft labels [h, w, C] of the next frame from its unit-length features."""
        settings = self.settings
        known = 1 + min(self._steps, settings.n_last_frames)
        context = (self._features_MhwD[:known], self._labels_MhwC[:known])
        labels_hwC = propagate_labels(
            features_hwD, *context, settings.neighbourhood_radius, settings.topk, settings.temperature
        )
        if settings.n_last_frames:
            # The order of the context frames is irrelevant, so the newest replaces the oldest in place.
            place = 1 + self._steps % settings.n_last_frames
            self._features_MhwD[place], self._labels_MhwC[place] = features_hwD, labels_hwC
        self._steps += 1
        return labels_hwC


@full_float32()
def propagate_labels(
    target_hwD: Tensor, context_MhwD: Tensor, labels_MhwC: Tensor, radius: int, topk: int, temperature: float
) -> Tensor:
    """Soft labels [h, w, C] of a target frame (`label_propagation` in the authors' script), in the dtype of the context's.

    Each target patch averages the labels of the source patches whose weight exp(similarity / temperature) is at least the `topk`-th
    largest over the neighbourhoods in all context frames jointly; ties at the last place all count. Features are of unit length; the
    `radius` of a neighbourhood is the Chebyshev distance in patches, 0 for no limit.
    """
    h, w, _ = target_hwD.shape
    reach, device = radius or max(h, w), target_hwD.device
    result_hwC = labels_MhwC.new_empty(h, w, labels_MhwC.shape[-1])
    for columns, near_columns, penalty_ct in _parts(w, TILE[1], reach, device):
        sources_hMtD = context_MhwD[:, :, near_columns].transpose(0, 1).contiguous()
        labels_hMtC = labels_MhwC[:, :, near_columns].transpose(0, 1).contiguous()
        for rows, near_rows, penalty_rs in _parts(h, TILE[0], reach, device):
            targets_rcD = target_hwD[rows, columns]
            similarities_TS = targets_rcD.flatten(0, 1) @ sources_hMtD[near_rows].flatten(0, 2).T
            penalty_rcs1t = penalty_rs[:, None, :, None, None] + penalty_ct[:, None, None]
            similarities_TS.view(*targets_rcD.shape[:2], -1, *sources_hMtD.shape[1:3]).add_(penalty_rcs1t)
            mixed_TC = _mean_labels(similarities_TS, labels_hMtC[near_rows].flatten(0, 2), topk, temperature)
            result_hwC[rows, columns] = mixed_TC.unflatten(0, targets_rcD.shape[:2])
    return result_hwC


@lru_cache(maxsize=16)
def _parts(count: int, side: int, reach: int, device: torch.device) -> list[tuple[slice, slice, Tensor]]:
    """Cut a side of the grid into parts, each with what it can reach, and for every pair of the two -inf if it is too far, else 0."""
    places, parts = torch.arange(count, device=device), []
    for start in range(0, count, side):
        stop = min(count, start + side)
        near = slice(max(0, start - reach), min(count, stop + reach))
        too_far = (places[start:stop, None] - places[near]).abs() > reach
        parts.append((slice(start, stop), near, torch.zeros(too_far.shape, device=device).masked_fill_(too_far, -torch.inf)))
    return parts


def _mean_labels(similarities_TS: Tensor, labels_SC: Tensor, topk: int, temperature: float) -> Tensor:
    """Average labels with the weights of the `topk` best sources and of all that tie with the last of them; overwrites similarities.

    As in the reference, weights are compared and not similarities: the exponential can make two of them equal. Equal frames make ties
    common. A product with all sources, most of weight 0, needs no look at which they are, for which one would wait for a GPU.
    """
    weights_TS = similarities_TS.div_(temperature).exp_()
    least_T1 = weights_TS.topk(min(topk, weights_TS.shape[1]), dim=1).values[:, -1:]
    weights_TS.masked_fill_(weights_TS < least_T1, 0)
    return weights_TS @ labels_SC / weights_TS.sum(1, keepdim=True)


def label_map(labels_hwC: Tensor, stride: int) -> Tensor:
    """The most likely id of each input pixel [h*stride, w*stride] uint8; `stride` is the input pixels per patch.

    Labels are upsampled bilinearly by the stride; each channel is then stretched to [0, 1] over the frame, so that an object that
    has faded still competes with the background (`norm_mask` in the authors' script; the papers do not describe it).
    """
    labels_1Chw = labels_hwC.permute(2, 0, 1)[None].contiguous()
    scores_CHW = F.interpolate(labels_1Chw, scale_factor=stride, mode="bilinear", align_corners=False)[0]
    low_C11 = scores_CHW.amin(dim=(1, 2), keepdim=True)
    high_C11 = scores_CHW.amax(dim=(1, 2), keepdim=True)
    stretched_CHW = scores_CHW.sub_(low_C11).div_(high_C11 - low_C11)
    # A channel without contrast: the authors' 0/0 = NaN wins every comparison, unless the channel is empty.
    flat_C11 = torch.where(high_C11 > 0, torch.inf, 0.0)
    levels_CHW = torch.where(high_C11 > low_C11, stretched_CHW, flat_C11)
    # `max` names the first of equal channels, as `argmax` does, which takes eight times as long on a CPU.
    return levels_CHW.max(dim=0).indices.to(torch.uint8)
