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
    """[K], or [positions, K]."""

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

    @torch.no_grad()
    def update(self, logits: Sequence[Tensor]) -> None:
        """Move towards the mean over every row of every tensor [..., K] or [..., positions, K], all processes together."""
        axes = self.mean_K.ndim
        total_K = torch.stack([tensor.flatten(0, -1 - axes).float().sum(0) for tensor in logits]).sum(0)
        rows = sum(tensor.shape[:-axes].numel() for tensor in logits)
        total_K, count = sum_over_processes(total_K, torch.tensor(float(rows), device=total_K.device))
        self.mean_K.lerp_(total_K / count, 1 - self.momentum)
