"""The embeddings of past batches, which serve contrastive losses as negatives (MoCo, He et al., CVPR 2020).

Shapes: Q embeddings kept, B new ones, K channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.distributed import gather_from_processes


class EmbeddingQueue(nn.Module):
    """The Q newest embeddings of all processes; starts with random directions, as MoCo and MoBY do."""

    keys_QK: Tensor
    oldest: Tensor

    def __init__(self, size: int, dim: int) -> None:
        """Fill with random unit vectors.

        Args:
            size: Q.
            dim: K.
        """
        super().__init__()
        self.register_buffer("keys_QK", F.normalize(torch.randn(size, dim), dim=-1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))
        self._observed: list[Tensor] = []

    @torch.no_grad()
    def observe(self, keys_BK: Tensor) -> None:
        """Take note of new embeddings of this process."""
        self._observed.append(keys_BK.detach())

    @torch.no_grad()
    def move(self) -> None:
        """Push what was observed since the last time."""
        assert self._observed, "nothing was observed"
        self.push(torch.cat(self._observed))
        self._observed = []

    @torch.no_grad()
    def push(self, keys_BK: Tensor) -> None:
        """Replace the oldest embeddings by all processes' new ones; of more than Q the last ones stay.

        MoBY's code wants the batch to divide the queue; this one goes round.
        """
        size = len(self.keys_QK)
        new = gather_from_processes(F.normalize(keys_BK.detach().float(), dim=-1))
        slots = (torch.arange(len(new), device=new.device) + self.oldest)[-size:] % size
        self.keys_QK[slots] = new[-size:]
        self.oldest.add_(len(new)).remainder_(size)


def info_nce(queries: Tensor, keys: Tensor, queue: EmbeddingQueue, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key against it and the queue, by cosine; the mean over queries, a scalar in float32.

    Args:
        queries: [..., K], with gradient.
        keys: [..., K], the positives.
        queue: The negatives.
        temperature: Divides the cosines.
    """
    queries = F.normalize(queries.float(), dim=-1)
    positive = (queries * F.normalize(keys.detach().float(), dim=-1)).sum(-1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.keys_QK.T], dim=-1) / temperature
    return (logits.logsumexp(-1) - logits[..., 0]).mean()


def cosine_distance(queries: Tensor, keys: Tensor) -> Tensor:
    """2 - 2 cos(query, key), BYOL's loss (Grill et al., NeurIPS 2020); the mean over queries, a scalar in float32.

    Args:
        queries: [..., K], with gradient.
        keys: [..., K].
    """
    return 2 - 2 * F.cosine_similarity(queries.float(), keys.detach().float(), dim=-1).mean()
