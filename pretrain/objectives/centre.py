"""The running mean of teacher logits that DINO subtracts from its targets to keep all prototypes in use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretrain.distributed import sum_over_processes
from pretrain.prototype_logits import Logits, join_product, split_product, values


class Centre(nn.Module):
    """An exponential moving average over steps of the mean logits, over all processes.

    facebookresearch/dino 7c446df, DINOLoss.update_center.
    """

    mean_K: Tensor
    """[K], or [positions, K]."""
    _prototypes_KD: Tensor | None
    _sum: Tensor | None

    def __init__(self, dim: int, momentum: float, positions: int = 0) -> None:
        """Start at zero.

        Args:
            dim: Number of prototypes K.
            momentum: Weight of the past.
            positions: Keep a mean for each of so many positions (PW-Self); 0 for one of all.
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean_K", torch.zeros((positions, dim) if positions else dim))
        self._forget()

    @torch.no_grad()
    def observe(self, logits: Sequence[Logits]) -> None:
        """Take note of every row of every tensor [..., K] or [..., positions, K]; in one step all of the same prototypes."""
        axes = self.mean_K.ndim
        for tensor in logits:
            # The mean of products is the product of the mean: logits are not needed one by one.
            embeddings, self._prototypes_KD = split_product(tensor)
            total = embeddings.flatten(0, -1 - axes).float().sum(0)
            self._sum = total if self._sum is None else self._sum + total
            self._rows += embeddings.shape[:-axes].numel()

    @torch.no_grad()
    def move(self) -> None:
        """Move towards the mean over what was observed since the last time, all processes together."""
        assert self._sum is not None, "nothing was observed"
        total, count = sum_over_processes(self._sum, torch.tensor(float(self._rows), device=self._sum.device))
        self.mean_K.lerp_(values(join_product(total / count, self._prototypes_KD)), 1 - self.momentum)
        self._forget()

    def _forget(self) -> None:
        self._sum, self._rows, self._prototypes_KD = None, 0, None
