"""What follows from label maps and neighbours: which patches are remembered, and how neighbours vote.

Labels below C are classes; a pixel with any other one has no class.

Shapes: B images of H x W pixels, S x S patches of P pixels, N = S * S, T patches that ask, k neighbours, C classes.

Sources: `hbird/hbird_eval.py` of vpariza/open-hummingbird-eval 5e79da2; `eval_segmentation.py` of
facebookresearch/capi 98b4fa1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.probes.patches import map_of_patches

_CLASSES_AT_ONCE = 8


def class_counts(pixels_NP: Tensor, num_classes: int) -> Tensor:
    """How many pixels of each patch hold each class [N, C]."""
    bins = num_classes + 1  # the last one for pixels without a class
    places_NP = pixels_NP.long().clamp(max=num_classes) + bins * torch.arange(len(pixels_NP))[:, None]
    return places_NP.flatten().bincount(minlength=bins * len(pixels_NP)).view(-1, bins)[:, :num_classes]


def patch_scores(counts_NC: Tensor) -> Tensor:
    """For each patch of an image [N], the sum over its classes of how many patches hold the class: the lower, the rarer."""
    holds_NC = counts_NC > 0
    return (holds_NC * holds_NC.sum(0)).sum(1).float()


def sample_patches(counts_NC: Tensor, draws_N: Tensor, count: int) -> Tensor:
    """The patches of an image with the lowest products of score and uniform draw, the lowest first; those without a class last."""
    products_N = patch_scores(counts_NC) * draws_N
    products_N[counts_NC.sum(1) == 0] = torch.inf
    return products_N.topk(count, largest=False).indices


def soft_votes(cosines_Tk: Tensor, neighbours_Tk: Tensor, pixels_UP: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Class probabilities [T, C] of patches with neighbours among U remembered ones: a softmax over cosine / temperature."""
    counts_UC = class_counts(pixels_UP, num_classes).float()
    shares_UC = counts_UC / counts_UC.sum(1, keepdim=True)
    weights_Tk = (cosines_Tk / temperature).softmax(dim=1).float()
    return torch.einsum("tk,tkc->tc", weights_Tk, shares_UC[neighbours_Tk])


def predict_softly(votes_TC: Tensor, size: int) -> Tensor:
    """The classes [size, size] of an image with the highest probabilities, which are enlarged bilinearly from the patches.

    Classes without any vote cannot win. Of the others a few at a time are enlarged, so that no map of all is held.
    """
    side = round(len(votes_TC) ** 0.5)
    classes = votes_TC.sum(0).nonzero().flatten()
    maps = votes_TC[:, classes].T.reshape(1, len(classes), side, side)
    best, winners = torch.zeros(size, size), torch.zeros(size, size, dtype=torch.int64)
    for first in range(0, len(classes), _CLASSES_AT_ONCE):
        part = maps[:, first : first + _CLASSES_AT_ONCE]
        highest, places = F.interpolate(part, (size, size), mode="bilinear", align_corners=False)[0].max(0)
        winners = torch.where(highest > best, first + places, winners)
        best = torch.maximum(best, highest)
    return classes[winners]


def predict_by_majority(neighbours_Tk: Tensor, pixels_UP: Tensor) -> Tensor:
    """The labels of an image that most neighbours have at each pixel of a patch, the lowest of several."""
    return map_of_patches(pixels_UP[neighbours_Tk].mode(dim=1).values)
