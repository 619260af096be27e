"""SelfPatch on an image-level loss (Yun et al., CVPR 2022; alinlab/SelfPatch 81aef149).

The teacher's target for a patch is a summary of the k most similar patches around it; the student predicts it from the patch
alone, in the same view. Beside it, the image-level loss on a CLS token that the same aggregation module makes.

What the authors' code does and the paper does not say, kept here: **all** crops, the local ones too, pass through the teacher;
the patch loss compares patch i of a view with target i of the same view; both centres move by all crops' teacher logits (DINO's
by the two global ones); neighbourhoods wrap round the border (see `candidate_table`); the weight of the patch loss is 0.1.

Unpublished, our choices: on MoBY the CLS token comes from the same aggregation module over a ViT without CLS token and final norm,
as on DINO, and the weight stays 0.1; the patch loss is MoBY's (see `moby`). A Swin gives its final map, 7 x 7 for 224 pixels, after
its own norm; its positions are the patches, windows of 3 x 3 lie on that map, and the aggregation module has the last stage's heads.

Shapes: B images, N = h*w patches, C candidates per patch, k selected ones, D channels.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec
from pretrain.config import ALL_PATCHES, Border, PretrainConfig, SelfPatchConfig
from pretrain.heads import Role
from pretrain.objectives.aggregation import Aggregation
from pretrain.objectives.base import Loss, Objective, Outputs, attention_heads, prefixed, token_width, tokens_by_size
from pretrain.objectives.dino import CLSDistillation, PatchDistillation
from pretrain.objectives.moby import ImageContrast, PatchContrast


@lru_cache(maxsize=64)
def candidate_table(grid: tuple[int, int], window: int, border: Border = "wrap") -> Tensor:
    """Candidates of each patch: the square window around it, without the patch itself (SelfPatch, section 3.1; get_local_index).

    With `wrap` the window goes round the image border on both axes, as in the authors' code: every patch has the same number of
    candidates, and those of the top left corner include the three other corners. The paper speaks of adjacent patches and does not
    mention the wrap. With `clamp`, ours, the window is moved inwards until it lies inside the image, which also leaves every patch
    the same number of candidates, all near it.

    Args:
        grid: (h, w) of the patch grid.
        window: Odd side of the window, at most the smaller grid side; or ALL_PATCHES.
        border: What happens where the window would leave the image; without effect for all patches.

    Returns:
        int64 [N, C], C = window^2 - 1, or N - 1.

    Raises:
        ValueError: If the window is even, or wraps onto itself.
    """
    h, w = grid
    count = h * w
    if window == ALL_PATCHES:
        others = torch.arange(count).expand(count, count)
        return others[~torch.eye(count, dtype=torch.bool)].view(count, count - 1)
    if window < 3 or window % 2 == 0 or window > min(h, w):
        raise ValueError(
            f"neighbourhood window {window} on a {h} x {w} grid: use an odd window from 3 to {min(h, w)}, "
            f"or {ALL_PATCHES} for all patches"
        )
    radius = window // 2
    y_N1, x_N1 = (torch.arange(count) // w)[:, None], (torch.arange(count) % w)[:, None]
    if border == "clamp":
        dy_W, dx_W = torch.cartesian_prod(torch.arange(-radius, radius + 1), torch.arange(-radius, radius + 1)).unbind(1)
        window_NW = (y_N1.clamp(radius, h - 1 - radius) + dy_W) * w + x_N1.clamp(radius, w - 1 - radius) + dx_W
        return window_NW[window_NW != torch.arange(count)[:, None]].view(count, window**2 - 1)
    offsets = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1) if (dy, dx) != (0, 0)]
    dy_C, dx_C = torch.tensor(offsets).unbind(1)
    return (y_N1 + dy_C) % h * w + (x_N1 + dx_C) % w


def select_positives(patches_BND: Tensor, grid: tuple[int, int], window: int, k: int, border: Border = "wrap") -> Tensor:
    """The k candidates of each patch that are most similar to it by cosine, which is taken in float32 also under autocast.

    Rounded to bfloat16, it would choose others for an eighth of the patches of a ViT-S/16.

    Args:
        patches_BND: The teacher backbone's output of its last block, without a final norm.
        grid: (h, w) of the patch grid.
        window: As for `candidate_table`, like `border`.
        k: How many to select.
        border: What happens at the border of the image.

    Returns:
        int64 [B, N, k] patch indices.

    Raises:
        ValueError: If there are fewer than k candidates.
    """
    table_NC = candidate_table(grid, window, border).to(patches_BND.device)
    if not 1 <= k <= table_NC.shape[1]:
        raise ValueError(f"k={k} positives from {table_NC.shape[1]} candidates")
    with torch.autocast(patches_BND.device.type, enabled=False):
        directions_BND = F.normalize(patches_BND.float(), dim=-1)
        # All pairs at once: one small matrix product is cheaper than gathering C vectors for every patch.
        similarity_BNN = directions_BND @ directions_BND.transpose(1, 2)
    candidates_BNC = table_NC.expand(len(patches_BND), -1, -1)
    best_BNk = similarity_BNN.gather(2, candidates_BNC).topk(k, dim=-1).indices
    return candidates_BNC.gather(2, best_BNk)


class SelfPatchNetwork(nn.Module):
    """A backbone (a ViT has neither CLS token nor final norm), the aggregation module, and the two projection heads."""

    def __init__(
        self, spec: BackboneSpec, losses: tuple[Loss, Loss], config: SelfPatchConfig, drop_path_rate: float, role: Role
    ) -> None:
        """Build with fresh weights; the losses, of images and of patches, make the heads, and only the backbone drops paths."""
        super().__init__()
        self.config = config
        self.role = role
        self.backbone = build_backbone(spec, drop_path_rate)
        dim = token_width(self.backbone)
        self.heads = nn.ModuleDict({"aggregation": Aggregation(dim, attention_heads(spec))})
        self.heads.update({name: loss.head(dim, role) for name, loss in zip(("cls", "patch"), losses, strict=True)})

    def patch_features(self, patches_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the patch head sees: the student's normed patches, or the teacher's summaries of their positives."""
        aggregation: Aggregation = self.heads["aggregation"]  # type: ignore[assignment]
        if self.role == "student":
            return aggregation.norm(patches_BND)
        positives_BNk = select_positives(patches_BND, grid, self.config.window, self.config.k, self.config.border)
        if self.config.aggregation == "average":
            return aggregation.patch_averages(patches_BND, positives_BNk)
        return aggregation.patch_summaries(patches_BND, positives_BNk)

    def forward(self, crops: Sequence[Tensor]) -> Outputs:
        cls: list[Tensor] = []
        patches: list[Tensor] = []
        for views, tokens in tokens_by_size(self.backbone, crops):
            cls += self.heads["aggregation"].image_cls(tokens.patches).chunk(views)  # type: ignore[operator]
            patches += self.patch_features(tokens.patches, tokens.grid).chunk(views)
        return Outputs(self.heads["cls"](cls), self.heads["patch"](patches))


class SelfPatch(Objective):
    """An image-level loss, DINO's or MoBY's, plus `selfpatch.weight` times a patch-level loss."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config.selfpatch
        self.image_loss: Loss = CLSDistillation(config.dino) if config.reads("dino") else ImageContrast(config.moby)
        self.patch_loss: Loss = (
            PatchContrast(config.moby, config.selfpatch.negatives)
            if config.patch_contrast
            else PatchDistillation(config.dino, config.selfpatch.out_dim)
        )

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        return SelfPatchNetwork(spec, (self.image_loss, self.patch_loss), self.config, drop_path_rate, role)

    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        return crops

    def forward(
        self, student: Outputs, teacher: Outputs, temperature: float, boxes: Sequence[Tensor] = ()
    ) -> dict[str, Tensor]:
        del boxes
        cls_loss = self.image_loss(student.cls, teacher.cls, temperature)
        patch_loss = self.patch_loss(student.patches, teacher.patches, temperature)
        return {"loss": cls_loss + self.config.weight * patch_loss, "cls_loss": cls_loss, "patch_loss": patch_loss}

    def move(self) -> None:
        self.image_loss.move()
        self.patch_loss.move()

    def diagnostics(self, teacher: Outputs, temperature: float) -> dict[str, Tensor]:
        assert teacher.patches is not None
        return prefixed("cls", self.image_loss.diagnostics(teacher.cls, temperature)) | prefixed(
            "patch", self.patch_loss.diagnostics(teacher.patches, temperature)
        )
