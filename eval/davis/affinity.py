"""Label propagation by windows: a target patch takes labels from the most similar patches near its place in each context frame.

The authors compare every patch with every patch of every context frame, multiply by an (hw) x (hw) mask and sort the result. Only the
(2r+1)^2 neighbours in each frame can count, so the target grid is cut into tiles, and a tile is compared with the part of the context
frames that its patches can reach.

Shapes: M context frames, h x w patches, D channels of a feature, C channels of a label; T target patches of a tile, s x t source
patches of a context frame within its reach, S = M*s*t.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from backbones.onednn import dot_products

TILE = (15, 13)
"""Rows and columns of a tile: small ones waste fewer comparisons, large ones multiply faster. Chosen at 30 x 52 and 60 x 104."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Part of the target grid and what it can reach."""

    targets: tuple[slice, slice]
    """Rows and columns of the target grid."""
    sources: tuple[slice, slice]
    """Rows and columns of a context frame within reach of some target."""
    penalty: Tensor
    """[T, 1, s*t] float32: -inf where the source is out of this target's reach, else 0."""


@lru_cache(maxsize=8)
def tiles(grid: tuple[int, int], radius: int, device: torch.device) -> tuple[Tile, ...]:
    """Cut a grid (h, w) into tiles; `radius` 0 means that everything is within reach."""
    reach = radius or max(grid)
    row_parts, column_parts = (
        [
            (slice(start, stop), slice(max(0, start - reach), min(count, stop + reach)))
            for start in range(0, count, side)
            for stop in [min(count, start + side)]
        ]
        for count, side in zip(grid, TILE, strict=True)
    )

    def far(targets: slice, sources: slice) -> Tensor:
        target = torch.arange(targets.start, targets.stop, device=device)
        source = torch.arange(sources.start, sources.stop, device=device)
        return (target[:, None] - source).abs() > reach

    result = []
    for rows, source_rows in row_parts:
        for columns, source_columns in column_parts:
            far_rows, far_columns = far(rows, source_rows), far(columns, source_columns)
            # [rows, 1, s, 1] | [1, columns, 1, t] -> [T, 1, s*t]
            out_of_reach = (far_rows[:, None, :, None] | far_columns[None, :, None, :]).flatten(2).flatten(0, 1)[:, None]
            penalty = torch.zeros(out_of_reach.shape, device=device).masked_fill_(out_of_reach, -torch.inf)
            result.append(Tile(targets=(rows, columns), sources=(source_rows, source_columns), penalty=penalty))
    return tuple(result)


def propagate_labels(
    target_hwD: Tensor, context_MhwD: Tensor, labels_MhwC: Tensor, radius: int, topk: int, temperature: float
) -> Tensor:
    """Soft labels of a target frame.

    Each target patch averages the labels of the source patches whose weight exp(similarity / temperature) is at least the `topk`-th
    largest over the neighbourhoods in all context frames jointly; ties at the last place all count.

    Source: facebookresearch/dino 7c446df, `label_propagation` in eval_video_segmentation.py.

    Args:
        target_hwD: Unit-length features of the target frame.
        context_MhwD: Unit-length features of the context frames.
        labels_MhwC: Their soft labels.
        radius: Chebyshev radius of a neighbourhood in patches; 0 for no limit.
        topk: Number of sources.
        temperature: Divides the similarities.

    Returns:
        [h, w, C] in the labels' dtype.
    """
    h, w, _ = target_hwD.shape
    result_hwC = labels_MhwC.new_empty(h, w, labels_MhwC.shape[-1])
    for tile in tiles((h, w), radius, target_hwD.device):
        targets_TD = target_hwD[tile.targets].flatten(0, 1)
        sources_SD = context_MhwD[:, tile.sources[0], tile.sources[1]].flatten(0, 2)
        labels_SC = labels_MhwC[:, tile.sources[0], tile.sources[1]].flatten(0, 2)
        similarities_TS = dot_products(targets_TD, sources_SD)
        similarities_TS.view(len(targets_TD), len(context_MhwD), -1).add_(tile.penalty)
        mixed_TC = _mix(similarities_TS, labels_SC, topk, temperature)
        result_hwC[tile.targets] = mixed_TC.view_as(result_hwC[tile.targets])
    return result_hwC


def _mix(similarities_TS: Tensor, labels_SC: Tensor, topk: int, temperature: float) -> Tensor:
    """Average labels with the weights of the `topk` best sources and of all that tie with the last of them."""
    count = min(topk + 1, similarities_TS.shape[1])
    best_similarities, best = similarities_TS.topk(count, dim=1)
    weights = best_similarities.div_(temperature).exp_()
    chosen = weights[:, :topk]
    mixed_TC = (labels_SC[best[:, :topk]] * chosen[:, :, None]).sum(1) / chosen.sum(1, keepdim=True)
    if count <= topk:
        return mixed_TC
    # As in the reference, weights are compared and not similarities: the exponential can make two of them equal. Equal frames make
    # ties common. A neighbourhood of fewer than `topk` sources ends in zeros, which need no second look.
    tied = torch.nonzero((weights[:, topk] == weights[:, topk - 1]) & (weights[:, topk] > 0))[:, 0]
    if len(tied):
        all_weights = similarities_TS[tied].div_(temperature).exp_()
        all_weights[all_weights < weights[tied, topk - 1, None]] = 0
        mixed_TC[tied] = all_weights @ labels_SC / all_weights.sum(1, keepdim=True)
    return mixed_TC
