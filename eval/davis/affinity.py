"""Label propagation by windows: a target patch takes labels from the most similar patches near its place in each context frame.

The authors compare every patch with every patch of every context frame, multiply by an (hw) x (hw) mask and sort the result. Only the
(2r+1)^2 neighbours in each frame can count, so the target grid is cut into strips of columns and these into tiles, and a tile is
compared with the part of the context frames that its patches can reach. What a strip can reach is copied once, row by row of all
frames, so that each of its tiles finds its part in one piece.

Shapes: M context frames, h x w patches, D channels of a feature, C channels of a label; T target patches of a tile, s rows and t
columns of a context frame within its reach, S = s*M*t.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from backbones.onednn import dot_products
from common.precision import full_float32

TILE = (10, 13)
"""Rows and columns of a tile: small ones waste fewer comparisons, large ones multiply faster. Chosen at 30 x 52 and 60 x 104."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Some rows of a strip and what they can reach."""

    targets: slice
    """Rows of the target grid."""
    sources: slice
    """Rows of a context frame within reach of some target."""
    penalty_Ts1t: Tensor
    """float32: -inf where the source is out of this target's reach, else 0."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Some columns of the target grid and what they can reach."""

    targets: slice
    """Columns of the target grid."""
    sources: slice
    """Columns of a context frame within reach of some target."""
    tiles: tuple[Tile, ...]
    """Its rows."""


@lru_cache(maxsize=8)
def strips(grid: tuple[int, int], radius: int, device: torch.device) -> tuple[Strip, ...]:
    """Cut a grid (h, w) into strips of tiles; `radius` 0 means that everything is within reach."""
    h, w = grid
    reach = radius or max(grid)

    def far(targets: slice, sources: slice) -> Tensor:
        target = torch.arange(targets.start, targets.stop, device=device)
        source = torch.arange(sources.start, sources.stop, device=device)
        return (target[:, None] - source).abs() > reach

    def tile(rows: slice, source_rows: slice, far_columns: Tensor) -> Tile:
        # [rows, 1, s, 1, 1] | [1, columns, 1, 1, t] -> [T, s, 1, t]
        out_of_reach = (far(rows, source_rows)[:, None, :, None, None] | far_columns[None, :, None, None, :]).flatten(0, 1)
        penalty_Ts1t = torch.zeros(out_of_reach.shape, device=device).masked_fill_(out_of_reach, -torch.inf)
        return Tile(targets=rows, sources=source_rows, penalty_Ts1t=penalty_Ts1t)

    result = []
    for columns, source_columns in _parts(w, TILE[1], reach):
        far_columns = far(columns, source_columns)
        tiles = tuple(tile(rows, source_rows, far_columns) for rows, source_rows in _parts(h, TILE[0], reach))
        result.append(Strip(targets=columns, sources=source_columns, tiles=tiles))
    return tuple(result)


def _parts(count: int, side: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """Cut a side of the grid into parts, each with what it can reach."""
    for start in range(0, count, side):
        stop = min(count, start + side)
        yield slice(start, stop), slice(max(0, start - reach), min(count, stop + reach))


@full_float32()
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
    mix = _mix_best if target_hwD.device.type == "cpu" else _mix_all
    for strip in strips((h, w), radius, target_hwD.device):
        sources_hMtD = context_MhwD[:, :, strip.sources].transpose(0, 1).contiguous()
        labels_hMtC = labels_MhwC[:, :, strip.sources].transpose(0, 1).contiguous()
        for tile in strip.tiles:
            targets_TD = target_hwD[tile.targets, strip.targets].flatten(0, 1)
            similarities_TS = dot_products(targets_TD, sources_hMtD[tile.sources].flatten(0, 2))
            similarities_TS.view(len(targets_TD), -1, *sources_hMtD.shape[1:3]).add_(tile.penalty_Ts1t)
            mixed_TC = mix(similarities_TS, labels_hMtC[tile.sources].flatten(0, 2), topk, temperature)
            result_hwC[tile.targets, strip.targets].copy_(mixed_TC.unflatten(0, (-1, strip.targets.stop - strip.targets.start)))
    return result_hwC


def _mix_best(similarities_TS: Tensor, labels_SC: Tensor, topk: int, temperature: float) -> Tensor:
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
        mixed_TC[tied] = _mix_all(similarities_TS[tied], labels_SC, topk, temperature)
    return mixed_TC


def _mix_all(similarities_TS: Tensor, labels_SC: Tensor, topk: int, temperature: float) -> Tensor:
    """The same by a product over all sources, most of them with weight 0: nothing for a GPU, which need not ask whether any tie."""
    weights_TS = similarities_TS.div_(temperature).exp_()
    least_T1 = weights_TS.topk(min(topk, weights_TS.shape[1]), dim=1).values[:, -1:]
    weights_TS.masked_fill_(weights_TS < least_T1, 0)
    return weights_TS @ labels_SC / weights_TS.sum(1, keepdim=True)
