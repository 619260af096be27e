"""SelfPatch on an image-level loss (Yun et al., CVPR 2022; alinlab/SelfPatch 81aef149).

The teacher's target for a patch is a summary of the k most similar patches around it; the student predicts it from the patch
alone, in the same view. Beside it, the image-level loss on a CLS token that the same aggregation module makes.

What the authors' code does and the paper does not say, kept here: **all** crops, the local ones too, pass through the teacher;
the patch loss compares patch i of a view with target i of the same view; both centres move by all crops' teacher logits (DINO's
by the two global ones); neighbourhoods wrap round the border (see `candidate_table`); the weight of the patch loss is 0.1.

Unpublished, our choices: on MoBY the CLS token comes from the same aggregation module over a ViT without CLS token and final norm,
as on DINO, and the weight stays 0.1; the patch loss is MoBY's (see `moby`). A Swin gives its final map, 7 x 7 for 224 pixels, after
its own norm; its positions are the patches, windows of 3 x 3 lie on that map, and the aggregation module has the last stage's heads.

The aggregation module is class attention over a set of patch tokens (CaiT without LayerScale; the authors' `ca_head`): one
learnable CLS token and two class-attention blocks summarise either all patches of an image (the image-level CLS of student and
teacher) or the k positives of each patch (the teacher's patch targets). The same weights do both.

Shapes: B images, N = h*w patches, Q CLS tokens per image, C candidates per patch, k selected ones, D channels, H heads, d = D/H,
S all tokens, L attended tokens.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Tokens
from backbones.spec import BackboneSpec, SwinSpec, ViTSpec
from pretrain.config import PretrainConfig
from pretrain.heads import INITIAL_DEVIATION, Role
from pretrain.methods import ALL_PATCHES, Border, SelfPatchConfig
from pretrain.objectives.base import Loss, Network, Objective, Outputs, Scalars, prefixed, token_width
from pretrain.objectives.dino import CLSDistillation, PatchDistillation
from pretrain.objectives.moby import ImageContrast, PatchContrast

_NORM_EPS = 1e-6


@lru_cache(maxsize=64)
@torch.compiler.assume_constant_result
def candidate_table(grid: tuple[int, int], window: int, border: Border = "wrap", device: torch.device | None = None) -> Tensor:
    """Candidates of each patch: the square window around it, without the patch itself (SelfPatch, section 3.1; get_local_index).

    With `wrap` the window goes round the image border on both axes, as in the authors' code; the paper speaks of adjacent patches
    and does not mention it. With `clamp`, ours, the window is moved inwards until it lies inside the image, so that every patch has
    as many candidates, all near it. The window's side is odd and at most the smaller side of the grid (h, w); with ALL_PATCHES
    there is no border. Returns int64 [N, C], C = window^2 - 1, or N - 1, which is made once, and is a constant of compiled networks.
    """
    h, w = grid
    patches_N1 = torch.arange(h * w)[:, None]
    if window == ALL_PATCHES:
        window_NW = torch.arange(h * w).expand(h * w, -1)
    elif window < 3 or window % 2 == 0 or window > min(h, w):
        allowed = f"an odd window from 3 to {min(h, w)}, or {ALL_PATCHES} for all patches"
        raise ValueError(f"neighbourhood window {window} on a {h} x {w} grid: use {allowed}")
    else:
        radius = window // 2
        y_N1, x_N1 = patches_N1 // w, patches_N1 % w
        if border == "clamp":
            y_N1, x_N1 = y_N1.clamp(radius, h - 1 - radius), x_N1.clamp(radius, w - 1 - radius)
        offsets = torch.arange(-radius, radius + 1)
        dy_W, dx_W = torch.cartesian_prod(offsets, offsets).unbind(1)
        window_NW = (y_N1 + dy_W) % h * w + (x_N1 + dx_W) % w
    return window_NW[window_NW != patches_N1].view(h * w, -1).to(device)


def select_positives(patches_BND: Tensor, grid: tuple[int, int], window: int, k: int, border: Border = "wrap") -> Tensor:
    """The k candidates [B, N, k] of each patch that are most similar to it by cosine; patches are without a final norm.

    The cosine is taken in float32 also under autocast: in bfloat16 it would choose others for an eighth of a ViT-S/16's patches.
    """
    table_NC = candidate_table(grid, window, border, patches_BND.device)
    if not 1 <= k <= table_NC.shape[1]:
        raise ValueError(f"k={k} positives from {table_NC.shape[1]} candidates")
    with torch.autocast(patches_BND.device.type, enabled=False):
        directions_BND = F.normalize(patches_BND.float(), dim=-1)
        # All pairs at once: one small matrix product is cheaper than gathering C vectors for every patch.
        similarity_BNN = directions_BND @ directions_BND.transpose(1, 2)
    candidates_BNC = table_NC.expand(len(patches_BND), -1, -1)
    best_BNk = similarity_BNN.gather(2, candidates_BNC).topk(k, dim=-1).indices
    return candidates_BNC.gather(2, best_BNk)


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
        self.blocks = nn.ModuleList([ClassAttentionBlock(dim, num_heads) for _ in range(2)])
        self.norm = nn.LayerNorm(dim, eps=_NORM_EPS)
        nn.init.trunc_normal_(self.cls_token, std=INITIAL_DEVIATION)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION)
                nn.init.zeros_(module.bias)

    def forward(self, patches_BND: Tensor, positives_BNk: Tensor | None = None) -> Tensor:
        """The normed summaries [B, N, D] of each patch's positives, without itself; or [B, 1, D] of all patches, the image's CLS."""
        cls_BQD = self.cls_token.expand(len(patches_BND), 1 if positives_BNk is None else positives_BNk.shape[1], -1)
        for block in self.blocks:
            cls_BQD = block(cls_BQD, patches_BND, positives_BNk)
        return self.norm(cls_BQD)

    def patch_averages(self, patches_BND: Tensor, positives_BNk: Tensor) -> Tensor:
        """For each patch the normed mean [B, N, D] of its positives: the ablation without attention.

        Where the mean sits is unpublished. Here it takes the place of the attention alone: targets pass the norm and the head.
        """
        return self.norm(_select(patches_BND, positives_BNk).mean(dim=2))


class SelfPatchNetwork(Network):
    """A backbone (a ViT has neither CLS token nor final norm), the aggregation module, and the two projection heads."""

    def __init__(self, spec: BackboneSpec, drop_path_rate: float, config: SelfPatchConfig, role: Role) -> None:
        super().__init__(spec, drop_path_rate)
        self.config, self.role = config, role
        assert isinstance(spec, ViTSpec | SwinSpec), "no other family can be pretrained"
        attention_heads = spec.num_heads if isinstance(spec, ViTSpec) else spec.num_heads[-1]
        self.heads["aggregation"] = Aggregation(token_width(self.backbone), attention_heads)

    def features(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The CLS token of all patches; the student's normed patches, or the teacher's summaries of their positives."""
        aggregation: Aggregation = self.heads["aggregation"]  # type: ignore[assignment]
        cls_BD = aggregation(tokens.patches)[:, 0]
        if self.role == "student":
            return cls_BD, aggregation.norm(tokens.patches)
        config = self.config
        positives_BNk = select_positives(tokens.patches, tokens.grid, config.window, config.k, config.border)
        summarise = aggregation.patch_averages if config.aggregation == "average" else aggregation
        return cls_BD, summarise(tokens.patches, positives_BNk)


class SelfPatch(Objective):
    """An image-level loss, DINO's or MoBY's, plus `selfpatch.weight` times a patch-level loss; the teacher sees all crops."""

    teacher_sees_local_crops = True

    def __init__(self, config: PretrainConfig) -> None:
        dino, moby, selfpatch = config.dino, config.moby, config.selfpatch
        super().__init__()
        self.config = selfpatch
        self.image_loss = CLSDistillation(dino, dino.out_dim) if config.reads("dino") else ImageContrast(moby)
        self.patch_loss: Loss = (
            PatchContrast(moby, selfpatch.negatives) if config.patch_contrast else PatchDistillation(dino, selfpatch.out_dim)
        )

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> Network:
        network = SelfPatchNetwork(spec, drop_path_rate, self.config, role)
        for name, loss in (("cls", self.image_loss), ("patch", self.patch_loss)):
            network.heads[name] = loss.head(token_width(network.backbone), role)
        return network

    def forward(self, student: Outputs, teacher: Outputs, temperature: float, boxes: Sequence[Tensor] = ()) -> Scalars:
        cls_loss = self.image_loss(student.cls, teacher.cls, temperature)
        patch_loss = self.patch_loss(student.patches, teacher.patches, temperature)
        return {"loss": cls_loss + self.config.weight * patch_loss, "cls_loss": cls_loss, "patch_loss": patch_loss}

    def diagnostics(self, teacher: Outputs, temperature: float) -> Scalars:
        assert teacher.patches is not None
        patches = self.patch_loss.diagnostics(teacher.patches, temperature)
        return super().diagnostics(teacher, temperature) | prefixed("patch", patches)
