"""Label propagation through one video: each frame takes its labels from the most similar patches of the frames before it.

The authors compare every patch with every patch of every context frame, multiply by an (hw) x (hw) mask and sort the result. Only the
neighbours in each frame can count, so the target grid is cut into parts, and a part is compared with what its patches can reach.

Sources: see `eval.propagation.protocol`.

Shapes: H x W pixels, h x w patches, D channels of a feature, C channels of a label (background and one per object id), M context
frames; T = r*c target patches of a tile, s rows and t columns of a context frame within its reach, S = s*M*t; K votes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from types import MappingProxyType

import torch
from torch import Tensor

from common.distributed import full_float32
from eval.propagation.features import FeatureExtractor
from eval.propagation.labels import add_labels
from eval.propagation.protocol import Rules

# Rows and columns of a tile: small ones waste fewer comparisons, large ones multiply faster. Chosen at 30 x 52 and 60 x 104.
TILE = (10, 13)
# Rows of a strip, where a neighbourhood is most of the grid. Chosen at 30 x 55.
STRIP = 6


@torch.inference_mode()
def propagate_sequence(
    images: Iterable[Tensor],
    start: Callable[[tuple[int, int]], Tensor],
    extract: FeatureExtractor,
    rules: Rules,
    beginnings: Mapping[int, Callable[[tuple[int, int]], Tensor]] = MappingProxyType({}),
) -> Iterator[Tensor]:
    """Soft labels [h, w, C] float32 of all frames of a sequence but the first, on the device.

    It does not synchronise with the GPU: later frames are queued while earlier ones run. The images are of one size, as `read_frame`
    gives them; `start` gives the first frame's labels on a grid (h, w), `beginnings` those of objects that begin in a later frame.
    """
    propagator, remaining, number = None, iter(images), 0
    for first in remaining:
        # The images that go through the network together.
        group = [first, *islice(remaining, extract.frames_at_once(*first.shape[1:]) - 1)]
        for features_hwD in extract(torch.stack([image.to(extract.device, non_blocking=True) for image in group])):
            grid = features_hwD.shape[0], features_hwD.shape[1]
            if propagator is None:
                propagator = LabelPropagator(features_hwD, start(grid).to(features_hwD.device), rules)
            else:
                given_hwC = beginnings[number](grid).to(features_hwD.device) if number in beginnings else None
                yield propagator.step(features_hwD, given_hwC)
            number += 1


class LabelPropagator:
    """Carries soft labels from frame to frame; remembers the first frame, those in which objects begin, and the last ones."""

    def __init__(self, features_hwD: Tensor, labels_hwC: Tensor, rules: Rules) -> None:
        """Start at the first frame, by its unit-length features and its labels."""
        self.rules = rules
        # Strips are cut from the longer side, of which they reach the smaller part, and lie in one piece if it comes first.
        self._turned = rules.first_frame_unlimited and features_hwD.shape[1] > features_hwD.shape[0]
        features, labels = self._turn(features_hwD), self._turn(labels_hwC)
        frames = 1 + rules.n_last_frames
        self._features, self._labels = (first.new_empty(frames, *first.shape) for first in (features, labels))
        self._features[0], self._labels[0] = features, labels
        self._kept, self._steps = 1, 0

    def _turn(self, frame: Tensor) -> Tensor:
        return frame.transpose(0, 1) if self._turned else frame

    def _keep(self, stored: Tensor, frame: Tensor) -> Tensor:
        return torch.cat((stored[: self._kept], frame[None], stored[self._kept :]))

    def step(self, features_hwD: Tensor, given_hwC: Tensor | None = None) -> Tensor:
        """Soft labels [h, w, C] of the next frame from its unit-length features; with `given_hwC`, of objects that begin in it."""
        rules, features = self.rules, self._turn(features_hwD)
        known = self._kept + min(self._steps, rules.n_last_frames)
        context = self._features[:known], self._labels[:known]
        if rules.first_frame_unlimited:
            labels = propagate_from_everywhere(features, *context, rules, max(0, rules.n_last_frames - self._steps))
        else:
            labels = propagate_labels(features, *context, rules)
        if given_hwC is not None:
            labels = add_labels(labels, self._turn(given_hwC))
            self._features, self._labels = self._keep(self._features, features), self._keep(self._labels, labels)
            self._kept += 1
            return self._turn(labels)
        if rules.n_last_frames:
            # The order of the context frames is irrelevant, so the newest replaces the oldest in place.
            place = self._kept + self._steps % rules.n_last_frames
            self._features[place], self._labels[place] = features, labels
        self._steps += 1
        return self._turn(labels)


@full_float32()
def propagate_labels(target_hwD: Tensor, context_MhwD: Tensor, labels_MhwC: Tensor, rules: Rules) -> Tensor:
    """Soft labels [h, w, C] of a target frame, in the dtype of the context's.

    Each target patch averages the labels of the source patches whose weight exp(similarity / temperature) is at least the `topk`-th
    largest over the neighbourhoods in all context frames jointly; ties at the last place all count. Features are of unit length.

    The grid is cut into strips of columns and these into tiles. What a strip can reach is copied once, row by row of all frames, so
    that each of its tiles finds its part in one piece.
    """
    h, w, _ = target_hwD.shape
    result_hwC = labels_MhwC.new_empty(h, w, labels_MhwC.shape[-1])
    for columns, near_columns in _parts(w, TILE[1], rules):
        sources_hMtD = context_MhwD[:, :, near_columns].transpose(0, 1).contiguous()
        labels_hMtC = labels_MhwC[:, :, near_columns].transpose(0, 1).contiguous()
        for rows, near_rows in _parts(h, TILE[0], rules):
            targets_rcD = target_hwD[rows, columns]
            similarities_TS = targets_rcD.flatten(0, 1) @ sources_hMtD[near_rows].flatten(0, 2).T
            penalty_rcst = penalties(rows, near_rows, columns, near_columns, rules, target_hwD.device)
            similarities_rcsMt = similarities_TS.view(*penalty_rcst.shape[:3], -1, penalty_rcst.shape[3])
            similarities_rcsMt.add_(penalty_rcst[:, :, :, None])
            mixed_TC = _mean_labels(similarities_TS, labels_hMtC[near_rows].flatten(0, 2), rules)
            result_hwC[rows, columns] = mixed_TC.unflatten(0, targets_rcD.shape[:2])
    return result_hwC


def penalties(rows: slice, near_rows: slice, columns: slice, near_columns: slice, rules: Rules, device: torch.device) -> Tensor:
    """For every pair of a target patch in rows and columns [r, c] and a source nearby [s, t], -inf if it is too far, else 0."""
    vertical = near_rows.start - rows.start, rows.stop - rows.start, near_rows.stop - near_rows.start
    horizontal = near_columns.start - columns.start, columns.stop - columns.start, near_columns.stop - near_columns.start
    return _penalties(vertical, horizontal, rules.neighbourhood_radius, rules.neighbourhood, device)


@lru_cache(maxsize=32)
def _penalties(
    vertical: tuple[int, int, int], horizontal: tuple[int, int, int], radius: float, neighbourhood: str, device: torch.device
) -> Tensor:
    """Of either direction: where the sources begin, counted from the first target, how many targets there are, how many sources."""
    apart = []
    for begin, targets, sources in (vertical, horizontal):
        places = torch.arange(begin, begin + sources, device=device)
        apart.append((places - torch.arange(targets, device=device)[:, None]).abs())
    rows_rs, columns_ct = apart
    rows_r1s1, columns_c1t = rows_rs[:, None, :, None], columns_ct[:, None]
    if neighbourhood == "square":
        too_far_rcst = torch.maximum(rows_r1s1, columns_c1t) > (radius or torch.inf)
    else:
        distances_rcst = rows_r1s1**2 + columns_c1t**2
        limit = radius**2 or torch.inf
        too_far_rcst = distances_rcst >= limit if neighbourhood == "open circle" else distances_rcst > limit
    return torch.zeros(too_far_rcst.shape, device=device).masked_fill_(too_far_rcst, -torch.inf)


def _parts(count: int, side: int, rules: Rules) -> list[tuple[slice, slice]]:
    """Cut a side of the grid into parts, each with what it can reach."""
    reach = math.floor(rules.neighbourhood_radius) or count
    return [
        (slice(start, min(count, start + side)), slice(max(0, start - reach), min(count, start + side + reach)))
        for start in range(0, count, side)
    ]


def _mean_labels(similarities_TS: Tensor, labels_SC: Tensor, rules: Rules) -> Tensor:
    """Average labels with the weights of the `topk` best sources and of all that tie with the last of them; overwrites similarities.

    DINO's script compares weights and not similarities: the exponential can make two of them equal. Equal frames make ties common. A
    product with all sources, most of weight 0, needs no look at which they are, for which one would wait for a GPU.
    """
    votes = min(rules.topk, similarities_TS.shape[1])
    if rules.weights == "softmax of the best":
        least_T1 = similarities_TS.topk(votes, dim=1).values[:, -1:]
        similarities_TS.masked_fill_(similarities_TS < least_T1, -torch.inf)
        return similarities_TS.div_(rules.temperature).softmax(1) @ labels_SC
    weights_TS = similarities_TS.div_(rules.temperature).exp_()
    least_T1 = weights_TS.topk(votes, dim=1).values[:, -1:]
    weights_TS.masked_fill_(weights_TS < least_T1, 0)
    return weights_TS @ labels_SC / weights_TS.sum(1, keepdim=True)


@full_float32()
def propagate_from_everywhere(
    target_hwD: Tensor, context_MhwD: Tensor, labels_MhwC: Tensor, rules: Rules, copies: int
) -> Tensor:
    """Soft labels [h, w, C] of a target frame to which the first context frame votes from everywhere, and the others from nearby.

    Exactly `topk` sources vote. So many `copies` of the first frame vote from nearby too, which are compared once and counted.
    The grid is cut into strips of rows, since such neighbourhoods span most columns.
    """
    h, w, _ = target_hwD.shape
    result_hwC = labels_MhwC.new_empty(h, w, labels_MhwC.shape[-1])
    columns, first_ND, first_labels_NC = slice(0, w), context_MhwD[0].flatten(0, 1), labels_MhwC[0].flatten(0, 1)
    for rows, near_rows in _parts(h, STRIP, rules):
        targets_TD = target_hwD[rows].flatten(0, 1)
        votes_TK, places_TK = _best(targets_TD @ first_ND.T, rules.topk)
        counts_TK = torch.ones_like(places_TK)
        if copies:
            penalty_rchw = penalties(rows, slice(0, h), columns, columns, rules, target_hwD.device)
            counts_TK += copies * (penalty_rchw.flatten(2).flatten(0, 1).gather(1, places_TK) == 0)
        labels_TKC = first_labels_NC[places_TK]
        if len(context_MhwD) > 1:
            nearby_MSD = context_MhwD[1:, near_rows].flatten(1, 2)
            similarities_MTS = torch.bmm(targets_TD.expand(len(nearby_MSD), -1, -1), nearby_MSD.transpose(1, 2))
            penalty_rcst = penalties(rows, near_rows, columns, columns, rules, target_hwD.device)
            similarities_MTS.add_(penalty_rcst.flatten(2).flatten(0, 1))
            near_votes_TK, near_labels_TKC = _best_nearby(
                similarities_MTS, labels_MhwC[1:, near_rows].flatten(1, 2), rules.topk
            )
            votes_TK = torch.cat((votes_TK, near_votes_TK), dim=1)
            labels_TKC = torch.cat((labels_TKC, near_labels_TKC), dim=1)
            counts_TK = torch.cat((counts_TK, torch.ones_like(near_votes_TK, dtype=torch.int64)), dim=1)
        result_hwC[rows] = _cut_votes(votes_TK, counts_TK, labels_TKC, rules).unflatten(0, (-1, w))
    return result_hwC


def _best(values_TS: Tensor, votes: int) -> tuple[Tensor, Tensor]:
    """The largest values of each row, and where they are."""
    best = values_TS.topk(min(votes, values_TS.shape[1]), dim=1)
    return best.values, best.indices


def _best_nearby(similarities_MTS: Tensor, labels_MSC: Tensor, votes: int) -> tuple[Tensor, Tensor]:
    """The best similarities of each target and the labels there; only the groups with the best maxima are searched for them."""
    _, targets, sources = similarities_MTS.shape
    # `amax` takes 32 values at a time, and what is left over one by one.
    divisors = [size for size in range(32, 129) if sources % size == 0]
    size = min(divisors, key=lambda size: size % 32 / size, default=sources)
    groups_MTGg = similarities_MTS.unflatten(2, (-1, size))
    _, groups_TK = _best(groups_MTGg.amax(3).transpose(0, 1).flatten(1), votes)
    frames_TK, groups_TK = groups_TK // (sources // size), groups_TK % (sources // size)
    each_T1 = torch.arange(targets, device=groups_TK.device)[:, None]
    values_TK, places_TK = _best(groups_MTGg[frames_TK, each_T1, groups_TK].flatten(1), votes)
    chosen_TK = places_TK // size
    return values_TK, labels_MSC[frames_TK.gather(1, chosen_TK), groups_TK.gather(1, chosen_TK) * size + places_TK % size]


def _cut_votes(values_TK: Tensor, counts_TK: Tensor, labels_TKC: Tensor, rules: Rules) -> Tensor:
    """Average labels with the softmax of the best similarities, each of which counts so often, until there are `topk` votes."""
    values_TK, order_TK = _best(values_TK, rules.topk)
    counts_TK = counts_TK.gather(1, order_TK)
    counts_TK = torch.minimum(counts_TK, (rules.topk - (counts_TK.cumsum(1) - counts_TK)).clamp_(min=0))
    weights_TK = (values_TK / rules.temperature).softmax(1) * counts_TK
    weights_TK /= weights_TK.sum(1, keepdim=True)
    each_T1 = torch.arange(len(order_TK), device=order_TK.device)[:, None]
    return (weights_TK[:, None] @ labels_TKC[each_T1, order_TK])[:, 0]
