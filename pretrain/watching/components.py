"""Principal components of patch features as colours: patches of one colour are alike, in whatever image they lie.

Shapes: B images, N = h*w patches, D channels, R = B*N rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

COLOURS = 3
_QUANTILES = (0.01, 0.99)
"""The range of each component that is spread over the colours; the few values outside are clipped."""


class Components(NamedTuple):
    """Colours of patches."""

    colours_BN3: Tensor
    """float32 in [0, 1], on the CPU; the first, second and third component as red, green and blue."""
    explained: float
    """Part of the features' variance that the three components hold."""


def principal_colours(patches_BND: Tensor) -> Components:
    """The first three principal components of all patches of all images together.

    All patches take part, not those of a foreground only: what counts as foreground would itself be a threshold on a component.
    Signs are fixed by the largest loading, so that pictures of one network do not depend on the device.
    """
    rows_RD = patches_BND.flatten(0, 1).double().cpu()
    rows_RD = rows_RD - rows_RD.mean(0)
    variances_D, directions_DD = torch.linalg.eigh(rows_RD.T @ rows_RD)
    count = min(COLOURS, len(variances_D))
    directions_DK = directions_DD[:, -count:].flip(1)
    largest_1K = directions_DK.abs().argmax(0, keepdim=True)
    directions_DK = directions_DK * directions_DK.gather(0, largest_1K).sign()
    scores_RK = rows_RD @ directions_DK
    low_1K, high_1K = (scores_RK.quantile(part, dim=0, keepdim=True) for part in _QUANTILES)
    colours_RK = ((scores_RK - low_1K) / (high_1K - low_1K).clamp(min=torch.finfo(torch.float32).eps)).clamp(0, 1)
    colours_RC = torch.nn.functional.pad(colours_RK, (0, COLOURS - count), value=0.5)
    total = float(variances_D.sum())
    explained = float(variances_D[-count:].sum()) / total if total > 0 else 1.0
    return Components(colours_RC.float().unflatten(0, patches_BND.shape[:2]), explained)
