"""The projection head of DINO, used for the CLS token and, in SelfPatch, for patch tokens.

Shapes: R rows (all tokens that the head sees in a step), D channels of an embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from pretrain.config import DINOConfig
from pretrain.onednn_linear import gelu_linear
from pretrain.prototype_logits import PrototypeLogits

INITIAL_DEVIATION = 0.02

_CPU_ROWS = 1536
"""Rows that go through the layers at once on a CPU: 12 MiB at the published width, which the process keeps for the next ones (see
`common.allocation`) instead of getting fresh memory from the system."""


class ProjectionHead(nn.Module):
    """Three-layer MLP with GELU, L2 normalisation, then a weight-normed linear layer without bias to the prototypes.

    facebookresearch/dino 7c446df, DINOHead. The last layer's magnitudes start at 1; DINO's option `norm_last_layer` keeps them there.
    """

    def __init__(
        self, in_dim: int, out_dim: int, hidden_dim: int = 2048, bottleneck_dim: int = 256, norm_last_layer: bool = True
    ) -> None:
        """Build the head with fresh weights.

        Args:
            in_dim: Width of the tokens.
            out_dim: Number of prototypes.
            hidden_dim: Width of the two hidden layers.
            bottleneck_dim: Width of the normalised embedding.
            norm_last_layer: Whether each prototype keeps length 1.
        """
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INITIAL_DEVIATION)
                nn.init.zeros_(layer.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, out_dim, bias=False))
        magnitudes = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(magnitudes)
        magnitudes.requires_grad_(not norm_last_layer)

    def forward(self, tokens: Sequence[Tensor]) -> list[PrototypeLogits]:
        """Logits [..., out_dim] of each tensor of tokens [..., in_dim].

        All tensors go through the layers together, and share the normalised prototypes.
        """
        rows = torch.cat([tensor.flatten(0, -2) for tensor in tokens])
        first, _, second, _, third = self.mlp
        step = _CPU_ROWS if rows.device.type == "cpu" else max(len(rows), 1)
        hidden = [gelu_linear(gelu_linear(first(part), second), third) for part in rows.split(step)]
        embeddings_RD = F.normalize(torch.cat(hidden), dim=-1)
        if torch.is_autocast_enabled(rows.device.type):
            embeddings_RD = embeddings_RD.to(torch.get_autocast_dtype(rows.device.type))
        prototypes_KD = self.last_layer.weight
        parts = embeddings_RD.split([tensor.shape[:-1].numel() for tensor in tokens])
        return [
            PrototypeLogits(part.view(*tensor.shape[:-1], -1), prototypes_KD)
            for part, tensor in zip(parts, tokens, strict=True)
        ]


def projection_head(in_dim: int, out_dim: int, config: DINOConfig) -> ProjectionHead:
    """A projection head with the widths of a configuration."""
    return ProjectionHead(in_dim, out_dim, config.hidden_dim, config.bottleneck_dim, config.norm_last_layer)
