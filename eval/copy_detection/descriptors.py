"""Descriptors, their whitening, and the search for originals.

Shapes: N images, Q queries, D channels of the network, P numbers of a descriptor, k results.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.base import Tokens
from eval.copy_detection.protocol import Rules
from eval.probes.images import image_token
from eval.probes.ranking import trapezoid_precision


def descriptor(tokens: Tokens, rules: Rules) -> Tensor:
    """The token of an image and the generalised mean of its patches [B, P]; a negative patch value counts as about 0."""
    raised_BND = tokens.patches.clamp(min=rules.least_patch_value) ** rules.patch_power
    return torch.cat([image_token(tokens), raised_BND.mean(1) ** (1 / rules.patch_power)], dim=1)


def whitening(features_NP: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """The mean [P] of descriptors and the projection [P, P] that whitens, in float64.

    The mean is subtracted from what is whitened, but not before the products of which the projection is made.
    """
    features_NP = features_NP.double()
    products_PP = features_NP.T @ features_NP / len(features_NP)
    values_P, vectors_PP = torch.linalg.eigh(products_PP)
    values_P = values_P.clamp(min=float(values_P.max()) * rules.least_eigenvalue)
    return features_NP.mean(0), (vectors_PP * values_P**-rules.whitening_power).T.flip(0)


def whitened(features_NP: Tensor, found: tuple[Tensor, Tensor] | None) -> Tensor:
    """Descriptors as they are compared: whitened where a whitening was found, and of length 1."""
    if found is not None:
        mean_P, projection_PP = found
        features_NP = ((features_NP.double() - mean_P) @ projection_PP.T).float()
    return F.normalize(features_NP, dim=1)


def search(queries_QP: Tensor, database_NP: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Similarities and places [Q, k] of the most similar images, from descriptors of length 1."""
    found = (queries_QP @ database_NP.T).topk(min(rules.searched, len(database_NP)), dim=1)
    return found.values, found.indices


def precisions(indices_Qk: npt.NDArray[np.integer], positives: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """The average precision [Q] of every query, from 0 to 1; originals that were not found add nothing."""
    return np.array(
        [
            trapezoid_precision(np.flatnonzero(np.isin(found_k, right)), len(right))
            for found_k, right in zip(indices_Qk, positives, strict=True)
        ]
    )
