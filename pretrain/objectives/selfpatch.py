"""SelfPatch on DINO (Yun et al., CVPR 2022; alinlab/SelfPatch 81aef149).

The teacher's target for a patch is a summary of the k most similar patches around it; the student predicts it from the patch
alone, in the same view. Beside it, DINO's loss on an image-level CLS token that the same aggregation module makes.

What the authors' code does and the paper does not say, kept here: **all** crops, the local ones too, pass through the teacher;
the patch loss compares patch i of a view with target i of the same view; both centres move by all crops' teacher logits (DINO's
by the two global ones); neighbourhoods wrap round the border (see `neighbours`); the weight of the patch loss is 0.1.

Shapes: V views, B images, N patches, D channels, K prototypes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, ViTSpec
from pretrain.objectives.aggregation import Aggregation
from pretrain.objectives.base import Objective, Role, ViewLogits, group_by_size, sharpened_targets, split_views
from pretrain.objectives.centre import Centre
from pretrain.objectives.dino import CLSDistillation, DINOConfig
from pretrain.objectives.neighbours import ALL_PATCHES, select_positives


@dataclass(kw_only=True)
class SelfPatchConfig:
    """The patch-level loss."""

    out_dim: int = 4096
    """Number of prototypes of the patch head."""
    window: int = 3
    """Odd side of the neighbourhood that holds a patch's candidates; 0 for all patches of the image."""
    k: int = 4
    """Candidates that are selected as positives, the most similar ones."""
    weight: float = 0.1
    """Weight of the patch loss beside the CLS loss."""

    def __post_init__(self) -> None:
        """Reject values without meaning."""
        if self.out_dim < 1 or self.k < 1 or self.weight < 0:
            raise ValueError(
                f"selfpatch: out_dim={self.out_dim} and k={self.k} must be positive, weight={self.weight} at least 0"
            )
        if self.window != ALL_PATCHES and (self.window < 3 or self.window % 2 == 0):
            raise ValueError(f"selfpatch.window={self.window} must be odd and at least 3, or {ALL_PATCHES} for all patches")
        if self.window != ALL_PATCHES and self.k > self.window**2 - 1:
            raise ValueError(f"selfpatch.k={self.k} exceeds the {self.window**2 - 1} candidates of window={self.window}")


class SelfPatchNetwork(nn.Module):
    """A ViT without CLS token and final norm, the aggregation module, and the two projection heads."""

    def __init__(self, spec: ViTSpec, dino: DINOConfig, selfpatch: SelfPatchConfig, drop_path_rate: float, role: Role) -> None:
        """Build with fresh weights.

        Args:
            spec: The backbone.
            dino: Configuration of the heads and the CLS loss.
            selfpatch: Configuration of the patch targets.
            drop_path_rate: Stochastic depth of the backbone; the aggregation module has none.
            role: The teacher summarises positives; the student only norms its patches.
        """
        super().__init__()
        self.selfpatch = selfpatch
        self.role = role
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict(
            {
                "aggregation": Aggregation(spec.embed_dim, spec.num_heads),
                "cls": dino.head(spec.embed_dim, dino.out_dim),
                "patch": dino.head(spec.embed_dim, selfpatch.out_dim),
            }
        )

    def patch_features(self, patches_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the patch head sees: the student's normed patches, or the teacher's summaries of their positives."""
        aggregation: Aggregation = self.heads["aggregation"]  # type: ignore[assignment]
        if self.role == "student":
            return aggregation.norm(patches_BND)
        positives_BNk = select_positives(patches_BND, grid, self.selfpatch.window, self.selfpatch.k)
        return aggregation.patch_summaries(patches_BND, positives_BNk)

    def forward(self, crops: Sequence[Tensor]) -> list[ViewLogits]:
        """See `Objective.build_network`."""
        outputs = []
        for group in group_by_size(crops):
            tokens = self.backbone.forward_tokens(torch.cat(group))
            cls_BD = self.heads["aggregation"].image_cls(tokens.patches)  # type: ignore[operator]
            patches_BND = self.patch_features(tokens.patches, tokens.grid)
            outputs.append(
                ViewLogits(
                    split_views(self.heads["cls"](cls_BD), len(group)),
                    split_views(self.heads["patch"](patches_BND), len(group)),
                )
            )
        return outputs


class SelfPatchObjective(Objective):
    """DINO's CLS loss plus `weight` times the patch loss."""

    def __init__(self, dino: DINOConfig, selfpatch: SelfPatchConfig) -> None:
        """Store the configuration; centres start at zero."""
        super().__init__()
        self.dino = dino
        self.selfpatch = selfpatch
        self.cls_distillation = CLSDistillation(dino)
        self.patch_centre = Centre(selfpatch.out_dim, dino.centre_momentum)

    def backbone_spec(self, architecture: Mapping[str, int], image_size: int) -> BackboneSpec:
        """See `Objective.backbone_spec`."""
        return ViTSpec(**architecture, image_size=image_size, class_token=False, final_norm=False)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """See `Objective.build_network`."""
        assert isinstance(spec, ViTSpec)
        return SelfPatchNetwork(spec, self.dino, self.selfpatch, drop_path_rate, role)

    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """Every crop."""
        return crops

    def patch_loss(self, student: Sequence[ViewLogits], teacher: Sequence[ViewLogits], temperature: float) -> Tensor:
        """Cross-entropy of each student patch with its own target, averaged over patches and images, then over views.

        A local view weighs as much as a global one, whatever its number of patches.
        """
        total = torch.zeros((), device=self.patch_centre.mean_K.device)
        views = 0
        for student_group, teacher_group in zip(student, teacher, strict=True):
            assert student_group.patches_VBNK is not None
            assert teacher_group.patches_VBNK is not None
            targets = sharpened_targets(teacher_group.patches_VBNK, self.patch_centre.mean_K, temperature)
            logits = student_group.patches_VBNK.float() / self.dino.student_temperature
            cross_entropy_VBN = -(targets * torch.log_softmax(logits, dim=-1)).sum(-1)
            total = total + cross_entropy_VBN.mean() * len(logits)
            views += len(logits)
        return total / views

    def forward(
        self, student: Sequence[ViewLogits], teacher: Sequence[ViewLogits], teacher_temperature: float
    ) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        student_VBK = torch.cat([group.cls_VBK for group in student])
        teacher_VBK = torch.cat([group.cls_VBK for group in teacher])
        cls_loss = self.cls_distillation(student_VBK, teacher_VBK, teacher_temperature)
        patch_loss = self.patch_loss(student, teacher, teacher_temperature)
        self.cls_distillation.centre.update([teacher_VBK])
        self.patch_centre.update([group.patches_VBNK for group in teacher if group.patches_VBNK is not None])
        return {"loss": cls_loss + self.selfpatch.weight * patch_loss, "cls_loss": cls_loss, "patch_loss": patch_loss}
