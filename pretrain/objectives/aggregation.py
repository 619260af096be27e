"""SelfPatch's aggregation module: class attention over a set of patch tokens (CaiT without LayerScale; the authors' `ca_head`).

One learnable CLS token and two class-attention blocks summarise either all patches of an image (the image-level CLS of student and
teacher) or the k positives of each patch (the teacher's patch targets). The same weights do both.

Shapes: B images, N patches, Q CLS tokens per image, k selected positives of each, D channels, H heads, d = D/H, S all tokens, L
attended tokens.
"""

import torch
from torch import Tensor, nn

from pretrain.heads import INITIAL_DEVIATION

NUM_BLOCKS = 2
_NORM_EPS = 1e-6


class ClassAttentionBlock(nn.Module):
    """Pre-norm attention of a CLS token to itself and a set of tokens, then an MLP on it; tokens stay as they are."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        # It adds the same to all scores of a query, which the softmax ignores: its gradient is zero, and what float arithmetic leaves
        # of it is noise that AdamW would turn into steps.
        self.key.bias.requires_grad_(False)
        self.value = nn.Linear(dim, dim)
        self.projection = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, cls_BQD: Tensor, patches_BND: Tensor, positives_BQk: Tensor | None) -> Tensor:
        """The CLS tokens after attending, each to itself and to the patches of its indices `positives_BQk`; None: all (Q is 1)."""
        queries = cls_BQD.shape[1]
        tokens_BSD = self.norm1(torch.cat([cls_BQD, patches_BND], dim=1))
        query_BQH1d = self.query(tokens_BSD[:, :queries]).unflatten(-1, (self.num_heads, 1, -1))
        # Keys and values of a patch do not depend on who attends to it: project once, then gather.
        key_BQHLd, value_BQHLd = (
            _attended(layer(tokens_BSD), queries, positives_BQk).unflatten(-1, (self.num_heads, -1)).transpose(2, 3)
            for layer in (self.key, self.value)
        )
        scale = query_BQH1d.shape[-1] ** -0.5
        weights_BQH1L = (query_BQH1d * scale @ key_BQHLd.transpose(-2, -1)).softmax(dim=-1)
        cls_BQD = cls_BQD + self.projection((weights_BQH1L @ value_BQHLd).flatten(2))
        return cls_BQD + self.mlp(self.norm2(cls_BQD))


def _attended(projected_BSD: Tensor, queries: int, positives_BQk: Tensor | None) -> Tensor:
    """For each of the `queries` CLS tokens the vectors that it attends to, [B, Q, L, D]: its own, then those of its patches."""
    if positives_BQk is None:
        return projected_BSD[:, None]
    return torch.cat([projected_BSD[:, :queries, None], _select(projected_BSD, queries + positives_BQk)], dim=2)


def _select(tokens_BSD: Tensor, indices_BQk: Tensor) -> Tensor:
    return tokens_BSD[torch.arange(len(tokens_BSD), device=tokens_BSD.device)[:, None, None], indices_BQk]


class Aggregation(nn.Module):
    """The CLS token, its two class-attention blocks, and the norm that all outputs pass; weights start as in DINO's ViT."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList([ClassAttentionBlock(dim, num_heads) for _ in range(NUM_BLOCKS)])
        self.norm = nn.LayerNorm(dim, eps=_NORM_EPS)
        nn.init.trunc_normal_(self.cls_token, std=INITIAL_DEVIATION)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION)
                nn.init.zeros_(module.bias)

    def image_cls(self, patches_BND: Tensor) -> Tensor:
        """The normed image-level CLS token [B, D], a summary of all patches."""
        return self._summarise(patches_BND, None, 1)[:, 0]

    def patch_summaries(self, patches_BND: Tensor, positives_BNk: Tensor) -> Tensor:
        """For each patch the normed summary [B, N, D] of its positives; the patch itself is not attended to."""
        return self._summarise(patches_BND, positives_BNk, patches_BND.shape[1])

    def patch_averages(self, patches_BND: Tensor, positives_BNk: Tensor) -> Tensor:
        """For each patch the normed mean [B, N, D] of its positives: the ablation without attention.

        Where the mean sits is unpublished. Here it takes the place of the attention alone: targets pass the norm and the head.
        """
        return self.norm(_select(patches_BND, positives_BNk).mean(dim=2))

    def _summarise(self, patches_BND: Tensor, positives_BQk: Tensor | None, queries: int) -> Tensor:
        cls_BQD = self.cls_token.expand(len(patches_BND), queries, -1)
        for block in self.blocks:
            cls_BQD = block(cls_BQD, patches_BND, positives_BQk)
        return self.norm(cls_BQD)
