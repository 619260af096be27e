"""Signs of what a teacher's outputs say about their images, and of collapse: outputs that say nothing.

Shapes: R rows (an image or a patch of a view each), V views, B images, K prototypes or channels of an embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.distributed import sum_over_processes
from pretrain.prototype_logits import Logits, flat_rows, values

MOST_VALUES = 2**24
"""Probabilities of one process that are looked at; of more rows an even sample. Their 64 MiB do not raise a run's peak memory."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2


@torch.no_grad()
def distribution_signs(
    logits: Sequence[Logits], centre: Tensor, temperature: float, most_values: int = MOST_VALUES
) -> dict[str, Tensor]:
    """How the sharpened targets of all processes are spread over the prototypes.

    Their mean entropy is high where each says little, the entropy of their mean is low where all use the same few prototypes; the
    difference of both is what a target says about its row, the mutual information of row and prototype, and collapse leaves none.

    Args:
        logits: [..., K], or [..., N, K] with a centre for each of N positions; the teacher's.
        centre: [K] or [N, K], subtracted from the logits.
        temperature: Divides them then.
        most_values: See `MOST_VALUES`.

    Returns:
        Scalars in float32, the same on all processes: `entropy` (nats) and `entropy_part` (of log K, in [0, 1]), the mean over rows;
        `batch_entropy` and `batch_entropy_part`, those of the mean over rows; `centre_norm`, the length of the centre (mean over
        positions).
    """
    centred_RK = torch.cat([_sampled_rows(tensor, centre, len(logits), most_values) for tensor in logits])
    log_probabilities_RK = torch.log_softmax(centred_RK / temperature, dim=-1)
    probabilities_RK = log_probabilities_RK.exp()
    sum_K, entropies, rows = sum_over_processes(
        probabilities_RK.sum(0), -(probabilities_RK * log_probabilities_RK).sum(), centre.new_tensor(float(len(centred_RK)))
    )
    mean_K = sum_K / rows
    entropy, batch_entropy = entropies / rows, torch.special.entr(mean_K).sum()
    largest = torch.log(mean_K.new_tensor(float(len(mean_K)))).clamp(min=torch.finfo(mean_K.dtype).tiny)
    return {
        "entropy": entropy,
        "entropy_part": entropy / largest,
        "batch_entropy": batch_entropy,
        "batch_entropy_part": batch_entropy / largest,
        "centre_norm": torch.linalg.vector_norm(centre, dim=-1).mean(),
    }


def _sampled_rows(logits: Logits, centre: Tensor, tensors: int, most_values: int) -> Tensor:
    """Centred rows [R, K] in float32; of too many for one of so many tensors, some from all over them."""
    rows_RK = flat_rows(logits)
    most = max(1, most_values // (tensors * rows_RK.shape[1]))
    if len(rows_RK) <= most:
        indices_R = torch.arange(len(rows_RK), device=logits.device)
    else:
        # Steps of equal length would meet the same positions of the grid again and again.
        places_R = torch.arange(most, device=logits.device, dtype=torch.float64) * _GOLDEN_RATIO % 1
        indices_R = (places_R * len(rows_RK)).long()
    subtracted = centre if centre.ndim == 1 else centre[indices_R % len(centre)]
    return values(rows_RK[indices_R]).float() - subtracted


@torch.no_grad()
def embedding_signs(embeddings: Sequence[Tensor], queue_QK: Tensor | None) -> dict[str, Tensor]:
    """How the teacher's embeddings of all processes are spread over the directions.

    Args:
        embeddings: [V, B, ..., K] for each size of crop; of any length.
        queue_QK: Unit vectors of past batches, where the loss has negatives.

    Returns:
        Scalars in float32, the same on all processes. `deviation`: the standard deviation of the unit-length embeddings, mean over
        dimensions, times sqrt(K): 1 where directions are spread evenly, 0 where all are the same (Chen and He, "Exploring Simple
        Siamese Representation Learning", CVPR 2021, watch it without the factor). `similarity`: the mean cosine between embeddings
        of different images; 0 if there is one image. `queue_similarity`: the mean cosine with the queue.
    """
    units = [F.normalize(tensor.detach().float(), dim=-1).transpose(0, 1).flatten(1, -2) for tensor in embeddings]
    units_BRK = torch.cat(units, dim=1)
    images, rows, width = units_BRK.shape
    image_sums_BK = units_BRK.sum(1)
    sum_K, squares_K, own, count = sum_over_processes(
        image_sums_BK.sum(0),
        units_BRK.square().sum((0, 1)),
        image_sums_BK.square().sum(),
        units_BRK.new_tensor(float(images)),
    )
    mean_K = sum_K / (count * rows)
    deviation_K = (squares_K / (count * rows) - mean_K.square()).clamp(min=0).sqrt()
    signs = {
        "deviation": deviation_K.mean() * width**0.5,
        # All pairs of rows without those of one image; 0 where there is but one.
        "similarity": (sum_K.square().sum() - own) / (rows**2 * count * (count - 1).clamp(min=1)),
    }
    if queue_QK is not None:
        signs["queue_similarity"] = mean_K @ queue_QK.mean(0)
    return signs


def prefixed(prefix: str, signs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`entropy` -> `cls_entropy`."""
    return {f"{prefix}_{name}": value for name, value in signs.items()}
