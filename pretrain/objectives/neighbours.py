"""Which patches are candidates for being a patch's positive (SelfPatch, section 3.1; the authors' get_local_index).

Shapes: B images, N = h*w patches, C candidates per patch, k selected ones, D channels.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.config import ALL_PATCHES, Border


@lru_cache(maxsize=64)
def candidate_table(grid: tuple[int, int], window: int, border: Border = "wrap") -> Tensor:
    """Candidates of each patch: the square window around it, without the patch itself.

    With `wrap` the window goes round the image border on both axes, as in the authors' code (alinlab/SelfPatch 81aef149): every
    patch has the same number of candidates, and those of the top left corner include the three other corners. The paper speaks
    of adjacent patches and does not mention the wrap. With `clamp`, ours, the window is moved inwards until it lies inside the
    image, which also leaves every patch the same number of candidates, all near it.

    Args:
        grid: (h, w) of the patch grid.
        window: Odd side of the window, at most the smaller grid side; or ALL_PATCHES.
        border: What happens where the window would leave the image; without effect for all patches.

    Returns:
        int64 [N, C], C = window^2 - 1, or N - 1.

    Raises:
        ValueError: If the window is even, or wraps onto itself.
    """
    h, w = grid
    count = h * w
    if window == ALL_PATCHES:
        others = torch.arange(count).expand(count, count)
        return others[~torch.eye(count, dtype=torch.bool)].view(count, count - 1)
    if window < 3 or window % 2 == 0 or window > min(h, w):
        raise ValueError(
            f"neighbourhood window {window} on a {h} x {w} grid: use an odd window from 3 to {min(h, w)}, "
            f"or {ALL_PATCHES} for all patches"
        )
    radius = window // 2
    y_N1, x_N1 = (torch.arange(count) // w)[:, None], (torch.arange(count) % w)[:, None]
    if border == "clamp":
        dy_W, dx_W = torch.cartesian_prod(torch.arange(-radius, radius + 1), torch.arange(-radius, radius + 1)).unbind(1)
        window_NW = (y_N1.clamp(radius, h - 1 - radius) + dy_W) * w + x_N1.clamp(radius, w - 1 - radius) + dx_W
        return window_NW[window_NW != torch.arange(count)[:, None]].view(count, window**2 - 1)
    offsets = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1) if (dy, dx) != (0, 0)]
    dy_C, dx_C = torch.tensor(offsets).unbind(1)
    return (y_N1 + dy_C) % h * w + (x_N1 + dx_C) % w


def select_positives(patches_BND: Tensor, grid: tuple[int, int], window: int, k: int, border: Border = "wrap") -> Tensor:
    """The k candidates of each patch that are most similar to it by cosine, which is taken in float32 also under autocast.

    Rounded to bfloat16, it would choose others for an eighth of the patches of a ViT-S/16.

    Args:
        patches_BND: The teacher backbone's output of its last block, without a final norm.
        grid: (h, w) of the patch grid.
        window: See `candidate_table`.
        k: How many to select.
        border: See `candidate_table`.

    Returns:
        int64 [B, N, k] patch indices.

    Raises:
        ValueError: If there are fewer than k candidates.
    """
    table_NC = candidate_table(grid, window, border).to(patches_BND.device)
    if not 1 <= k <= table_NC.shape[1]:
        raise ValueError(f"k={k} positives from {table_NC.shape[1]} candidates")
    with torch.autocast(patches_BND.device.type, enabled=False):
        directions_BND = F.normalize(patches_BND.float(), dim=-1)
        # All pairs at once: one small matrix product is cheaper than gathering C vectors for every patch.
        similarity_BNN = directions_BND @ directions_BND.transpose(1, 2)
    candidates_BNC = table_NC.expand(len(patches_BND), -1, -1)
    best_BNk = similarity_BNN.gather(2, candidates_BNC).topk(k, dim=-1).indices
    return candidates_BNC.gather(2, best_BNk)
