"""Batch normalisation over all processes, on any device (torch's SyncBatchNorm needs GPUs).

Shapes: R rows of this process, C channels.
"""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from pretrain.distributed import world_size


class SynchronisedBatchNorm(nn.BatchNorm1d):
    """Normalises the last dimension by the mean and variance of all rows of all processes; running statistics as in torch."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise [..., C]; in training mode by this batch, otherwise by the running statistics.

        Raises:
            ValueError: In training mode, if all processes together have a single row, whose variance is no number.
        """
        rows_RC = rows.flatten(0, -2)
        if not self.training or world_size() == 1:
            return super().forward(rows_RC).view_as(rows)
        values_RC = rows_RC.float()
        count = all_reduce(torch.tensor(float(len(values_RC)), device=rows.device))
        if count < 2:
            raise ValueError("batch normalisation needs more than one image; raise train.batch_size")
        mean_C = all_reduce(values_RC.sum(0)) / count
        variance_C = all_reduce((values_RC - mean_C).square().sum(0)) / count
        with torch.no_grad():
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean_C, momentum)
            self.running_var.lerp_(variance_C * count / (count - 1), momentum)
            self.num_batches_tracked.add_(1)
        # The batch's own statistics are part of the gradient, so they are inputs here and not `running_*`.
        normalised_RC = (values_RC - mean_C) * torch.rsqrt(variance_C + self.eps)
        return (normalised_RC * self.weight + self.bias).to(rows.dtype).view_as(rows)
