"""Projection heads: DINO's, which ends in prototypes, and MoBY's, which normalises over the batch.

Shapes: B images, R rows (all tokens of all views in a step), D channels of an embedding, K prototypes, C channels.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.utils.parametrizations import weight_norm

from common.distributed import world_size
from pretrain.methods import DINOConfig, MoBYConfig

Role = Literal["student", "teacher"]

INITIAL_DEVIATION = 0.02


class Projections(NamedTuple):
    """What a head makes of several views: the factors of DINO's logits, so that losses make as many rows at a time as they need."""

    views: Sequence[Tensor]  # [B, ..., D] of each view, B images and possibly patches
    prototypes_KD: Tensor | None = None  # float32; without them the loss compares the embeddings themselves

    def logits(self, rows: Tensor) -> Tensor:
        """float32 [..., K] of embeddings [..., D] of these views, which are multiplied in their own dtype."""
        return rows.float() if self.prototypes_KD is None else F.linear(rows, self.prototypes_KD.to(rows.dtype)).float()

    def logits_by_view(self) -> list[Tensor]:
        """The logits of every view, by one product: its backward pass writes the prototypes' gradient once, not for each view."""
        return by_rows(self.logits, self.views)


def by_rows(layer: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """What a layer on rows [R, ...] makes of views [B, ..., D], all of whose rows pass it together."""
    rows = layer(torch.cat([view.flatten(0, -2) for view in views]))
    parts = rows.split([view.shape[:-1].numel() for view in views])
    return [part.view(*view.shape[:-1], -1) for part, view in zip(parts, views, strict=True)]


class ProjectionHead(nn.Module):
    """Three-layer MLP with GELU, L2 normalisation, then a weight-normed linear layer without bias to the prototypes.

    facebookresearch/dino 7c446df, DINOHead. The last layer's magnitudes start at 1; DINO's option `norm_last_layer` keeps them there.
    """

    def __init__(self, in_dim: int, out_dim: int, config: DINOConfig) -> None:
        super().__init__()
        hidden = config.hidden_dim
        layers = nn.Linear(in_dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, config.bottleneck_dim)
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=INITIAL_DEVIATION)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        self.last_layer = weight_norm(nn.Linear(config.bottleneck_dim, out_dim, bias=False))
        magnitudes = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(magnitudes)
        magnitudes.requires_grad_(not config.norm_last_layer)

    def forward(self, views: Sequence[Tensor]) -> Projections:
        """Views [B, ..., in_dim] -> unit-length embeddings and `out_dim` prototypes."""
        return Projections(by_rows(self._embed, views), self.last_layer.weight)

    def _embed(self, rows: Tensor) -> Tensor:
        embeddings_RD, device = F.normalize(self.mlp(rows), dim=-1), rows.device.type
        return embeddings_RD.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else embeddings_RD


class MoBYHead(nn.Module):
    """A two-layer projector and, in the student, a two-layer predictor, with torch's default initialisation as the authors'."""

    def __init__(self, in_dim: int, config: MoBYConfig, role: Role) -> None:
        super().__init__()

        def mlp(width: int) -> nn.Sequential:
            hidden = config.hidden_dim
            return nn.Sequential(nn.Linear(width, hidden), BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, config.out_dim))

        self.projector = mlp(in_dim)
        self.predictor = mlp(config.out_dim) if role == "student" else nn.Identity()

    def forward(self, views: Sequence[Tensor]) -> Projections:
        """Views [B, ..., in_dim]; each is normalised by its own statistics, since MoBY passes views one by one."""
        return Projections([self.predictor(self.projector(view)) for view in views])


class BatchNorm(nn.BatchNorm1d):
    """Normalises the last dimension by the mean and variance of all rows of all processes; torch's SyncBatchNorm needs GPUs."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise [..., C]; in training mode by this batch, otherwise by the running statistics."""
        rows_RC = rows.flatten(0, -2)
        if not self.training or world_size() == 1:
            return super().forward(rows_RC).view_as(rows)
        values_RC = rows_RC.float()
        count = len(values_RC) * world_size()  # `GlobalBatchSampler` gives all processes as many images
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
