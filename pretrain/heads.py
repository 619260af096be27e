"""The projection head of DINO, used for the CLS token and, in SelfPatch, for patch tokens."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

INITIAL_DEVIATION = 0.02


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

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [..., out_dim] of tokens [..., in_dim]."""
        return self.last_layer(F.normalize(self.mlp(tokens), dim=-1))
