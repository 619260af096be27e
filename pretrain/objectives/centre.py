"""The running mean of teacher logits that DINO subtracts from its targets to keep all prototypes in use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretrain.distributed import sum_over_processes


class Centre(nn.Module):
    """An exponential moving average over steps of the mean logits, over all processes.

    facebookresearch/dino 7c446df, DINOLoss.update_center.
    """

    mean_K: Tensor

    def __init__(self, dim: int, momentum: float) -> None:
        """Start at zero.

        Args:
            dim: Number of prototypes K.
            momentum: Weight of the past.
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean_K", torch.zeros(dim))

    @torch.no_grad()
    def update(self, logits: Sequence[Tensor]) -> None:
        """Move towards the mean over every row of every tensor [..., K], all processes together."""
        total_K = torch.stack([tensor.flatten(0, -2).float().sum(0) for tensor in logits]).sum(0)
        rows = sum(tensor.shape[:-1].numel() for tensor in logits)
        total_K, count = sum_over_processes(total_K, torch.tensor(float(rows), device=total_K.device))
        self.mean_K.lerp_(total_K / count, 1 - self.momentum)
