"""The networks of SelfPatch on DINO as the authors' code computes them, to be slow and obvious.

Written from the description of alinlab/SelfPatch 81aef149 and facebookresearch/dino 7c446df: attention as a matrix and a softmax,
the positives of every patch gathered before anything else is done with them. Parameters have our names, so that weights can be
exchanged.

Shapes: B images, N patches, D channels, H heads, d = D/H, k positives, K prototypes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Dimensions that the two networks share."""

    dim: int
    depth: int
    num_heads: int
    patch_size: int
    grid_side: int
    """Side of the grid of stored positions."""
    out_dim: int
    out_dim_patch: int
    hidden_dim: int
    bottleneck_dim: int
    k: int
    window: int = 3


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        batch, count, width = tokens_BND.shape
        qkv = self.qkv(tokens_BND).reshape(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        queries_BHNd, keys_BHNd, values_BHNd = qkv[0], qkv[1], qkv[2]
        weights_BHNN = (queries_BHNd @ keys_BHNd.transpose(-2, -1)) * (width // self.num_heads) ** -0.5
        weights_BHNN = weights_BHNN.softmax(dim=-1)
        return self.proj((weights_BHNN @ values_BHNd).transpose(1, 2).reshape(batch, count, width))


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def kept(self, branch_BND: Tensor) -> Tensor:
        """Stochastic depth: some images' branch is left out."""
        if not self.drop_path or not self.training:
            return branch_BND
        keep = 1 - self.drop_path
        return branch_BND.div(keep) * branch_BND.new_empty(len(branch_BND), 1, 1).bernoulli_(keep)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        tokens_BND = tokens_BND + self.kept(self.attn(self.norm1(tokens_BND)))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(tokens_BND)))
        return tokens_BND + self.kept(self.mlp["fc2"](hidden))


class Backbone(nn.Module):
    def __init__(self, sizes: Dimensions, drop_path_rate: float) -> None:
        super().__init__()
        self.patch_size, self.grid_side = sizes.patch_size, sizes.grid_side
        projection = nn.Conv2d(3, sizes.dim, sizes.patch_size, stride=sizes.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.grid_side**2, sizes.dim))
        rates = torch.linspace(0, drop_path_rate, sizes.depth).tolist()
        self.blocks = nn.ModuleList([Block(sizes.dim, sizes.num_heads, rate) for rate in rates])

    def positions(self, side: int) -> Tensor:
        if side == self.grid_side:
            return self.pos_embed
        grid = self.pos_embed.reshape(1, self.grid_side, self.grid_side, -1).permute(0, 3, 1, 2)
        scale = (side + 0.1) / self.grid_side
        resized = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        return resized.permute(0, 2, 3, 1).reshape(1, side**2, -1)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        tokens_BND = self.patch_embed["proj"](images_B3SS).flatten(2).transpose(1, 2)
        tokens_BND = tokens_BND + self.positions(images_B3SS.shape[-1] // self.patch_size)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return tokens_BND


class ClassAttentionBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.projection = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, patches_BND: Tensor, cls_B1D: Tensor) -> Tensor:
        tokens_BLD = self.norm1(torch.cat([cls_B1D, patches_BND], dim=1))
        batch, count, width = tokens_BLD.shape
        query = self.query(tokens_BLD[:, 0]).reshape(batch, 1, self.num_heads, -1).permute(0, 2, 1, 3)
        key = self.key(tokens_BLD).reshape(batch, count, self.num_heads, -1).permute(0, 2, 1, 3)
        value = self.value(tokens_BLD).reshape(batch, count, self.num_heads, -1).permute(0, 2, 1, 3)
        weights = (query * (width // self.num_heads) ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
        cls_B1D = cls_B1D + self.projection((weights @ value).transpose(1, 2).reshape(batch, 1, width))
        return cls_B1D + self.mlp(self.norm2(cls_B1D))


def wrapped_window(side: int, window: int) -> Tensor:
    """Patches around each patch [N, window^2 - 1]; what leaves the image comes in on the other side."""
    radius = window // 2
    rows = []
    for y in range(side):
        for x in range(side):
            around = {
                (y + dy) % side * side + (x + dx) % side
                for dy in range(-radius, radius + 1)
                for dx in range(-radius, radius + 1)
            }
            rows.append(sorted(around - {y * side + x}))
    return torch.tensor(rows)


class Aggregation(nn.Module):
    def __init__(self, sizes: Dimensions) -> None:
        super().__init__()
        self.k, self.window = sizes.k, sizes.window
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.dim))
        self.blocks = nn.ModuleList([ClassAttentionBlock(sizes.dim, sizes.num_heads) for _ in range(2)])
        self.norm = nn.LayerNorm(sizes.dim, eps=NORM_EPS)
        self.windows: dict[int, Tensor] = {}

    def positives(self, patches_BND: Tensor) -> Tensor:
        """The vectors of the most similar patches around each patch, [B*N, k, D]."""
        count, width = patches_BND.shape[1:]
        side = round(count**0.5)
        if side not in self.windows:
            self.windows[side] = wrapped_window(side, self.window).to(patches_BND.device)
        around_NC = self.windows[side]
        directions = F.normalize(patches_BND, dim=-1)
        similarity = directions[:, around_NC] @ directions.unsqueeze(2).transpose(-2, -1)
        best = similarity.squeeze(-1).topk(self.k, dim=-1).indices.view(-1, self.k, 1)
        candidates = patches_BND[:, around_NC].view(-1, around_NC.shape[1], width)
        return candidates.gather(1, best.expand(-1, -1, width))

    def forward(self, patches_BND: Tensor, as_teacher: bool) -> Tensor:
        """[B, 1 + N, D]: the image's CLS token, and the teacher's summaries of positives or the student's patches, normed."""
        cls = self.cls_token.expand(len(patches_BND), -1, -1)
        targets = self.cls_token.expand(patches_BND.shape[:2].numel(), -1, -1)
        positives = self.positives(patches_BND) if as_teacher else None
        for block in self.blocks:
            cls = block(patches_BND, cls)
            if positives is not None:
                targets = block(positives, targets)
        patches = patches_BND if positives is None else targets.reshape(patches_BND.shape)
        return self.norm(torch.cat([cls, patches], dim=1))


class Head(nn.Module):
    def __init__(self, sizes: Dimensions, out_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(sizes.dim, sizes.hidden_dim),
            nn.GELU(),
            nn.Linear(sizes.hidden_dim, sizes.hidden_dim),
            nn.GELU(),
            nn.Linear(sizes.hidden_dim, sizes.bottleneck_dim),
        )
        self.last_layer = weight_norm(nn.Linear(sizes.bottleneck_dim, out_dim, bias=False))
        self.last_layer.parametrizations.weight.original0.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(tokens), dim=-1))


class Network(nn.Module):
    def __init__(self, sizes: Dimensions, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.backbone = Backbone(sizes, drop_path_rate)
        self.heads = nn.ModuleDict(
            {
                "aggregation": Aggregation(sizes),
                "cls": Head(sizes, sizes.out_dim),
                "patch": Head(sizes, sizes.out_dim_patch),
            }
        )

    def forward(self, images: Tensor, as_teacher: bool) -> tuple[Tensor, Tensor]:
        """Logits of the CLS token [VB, 1, K] and of the patches [VB, N, K]."""
        tokens = self.heads["aggregation"](self.backbone(images), as_teacher)
        return self.heads["cls"](tokens[:, :1]), self.heads["patch"](tokens[:, 1:])
