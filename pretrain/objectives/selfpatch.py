"""SelfPatch on an image-level loss (Yun et al., CVPR 2022; alinlab/SelfPatch 81aef149).

The teacher's target for a patch is a summary of the k most similar patches around it; the student predicts it from the patch
alone, in the same view. Beside it, the image-level loss on a CLS token that the same aggregation module makes.

What the authors' code does and the paper does not say, kept here: **all** crops, the local ones too, pass through the teacher;
the patch loss compares patch i of a view with target i of the same view; both centres move by all crops' teacher logits (DINO's
by the two global ones); neighbourhoods wrap round the border (see `neighbours`); the weight of the patch loss is 0.1.

Unpublished, our choices: on MoBY the CLS token comes from the same aggregation module over a ViT without CLS token and final norm,
as on DINO, and the weight stays 0.1; the patch loss is MoBY's (see `moby`). A Swin gives its final map, 7 x 7 for 224 pixels, after
its own norm; its positions are the patches, windows of 3 x 3 lie on that map, and the aggregation module has the last stage's heads.

Shapes: V views, B images, N patches, D channels, K prototypes or channels of an embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec
from pretrain.config import SelfPatchConfig
from pretrain.objectives.aggregation import Aggregation
from pretrain.objectives.base import (
    ImageLoss,
    Objective,
    PatchLoss,
    Role,
    ViewOutputs,
    attention_heads,
    backbone_spec,
    group_by_size,
    split_views,
    token_width,
)
from pretrain.objectives.diagnostics import prefixed
from pretrain.objectives.neighbours import select_positives
from pretrain.prototype_logits import Logits, concatenate


class SelfPatchNetwork(nn.Module):
    """A backbone (a ViT has neither CLS token nor final norm), the aggregation module, and the two projection heads."""

    def __init__(
        self,
        spec: BackboneSpec,
        image_loss: ImageLoss,
        patch_loss: PatchLoss,
        config: SelfPatchConfig,
        drop_path_rate: float,
        role: Role,
    ) -> None:
        """Build with fresh weights.

        Args:
            spec: The backbone.
            image_loss: Makes the CLS head.
            patch_loss: Makes the patch head.
            config: Configuration of the patch targets.
            drop_path_rate: Stochastic depth of the backbone; the aggregation module has none.
            role: The teacher summarises positives; the student only norms its patches.
        """
        super().__init__()
        self.config = config
        self.role = role
        self.backbone = build_backbone(spec, drop_path_rate)
        dim = token_width(self.backbone)
        self.heads = nn.ModuleDict(
            {
                "aggregation": Aggregation(dim, attention_heads(spec)),
                "cls": image_loss.head(dim, role),
                "patch": patch_loss.head(dim, role),
            }
        )

    def patch_features(self, patches_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the patch head sees: the student's normed patches, or the teacher's summaries of their positives."""
        aggregation: Aggregation = self.heads["aggregation"]  # type: ignore[assignment]
        if self.role == "student":
            return aggregation.norm(patches_BND)
        positives_BNk = select_positives(patches_BND, grid, self.config.window, self.config.k, self.config.border)
        if self.config.aggregation == "average":
            return aggregation.patch_averages(patches_BND, positives_BNk)
        return aggregation.patch_summaries(patches_BND, positives_BNk)

    def forward(self, crops: Sequence[Tensor]) -> list[ViewOutputs]:
        """See `Objective.build_network`."""
        cls, patches = [], []
        for group in group_by_size(crops):
            tokens = self.backbone.forward_tokens(torch.cat(group))
            cls_BD = self.heads["aggregation"].image_cls(tokens.patches)  # type: ignore[operator]
            cls.append(split_views(cls_BD, len(group)))
            patches.append(split_views(self.patch_features(tokens.patches, tokens.grid), len(group)))
        return list(map(ViewOutputs, self.heads["cls"](cls), self.heads["patch"](patches)))


class SelfPatchObjective(Objective):
    """An image-level loss plus `weight` times a patch-level loss."""

    def __init__(self, image_loss: ImageLoss, patch_loss: PatchLoss, config: SelfPatchConfig) -> None:
        """Store the losses."""
        super().__init__()
        self.config = config
        self.image_loss = image_loss
        self.patch_loss = patch_loss

    def backbone_spec(self, architecture: Mapping[str, Any], image_size: int) -> BackboneSpec:
        """See `Objective.backbone_spec`."""
        return backbone_spec(architecture, image_size, class_token=False)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """See `Objective.build_network`."""
        return SelfPatchNetwork(spec, self.image_loss, self.patch_loss, self.config, drop_path_rate, role)

    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """Every crop."""
        return crops

    def forward(
        self,
        student: Sequence[ViewOutputs],
        teacher: Sequence[ViewOutputs],
        teacher_temperature: float,
        boxes: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        del boxes
        student_VBK = concatenate([group.cls_VBK for group in student])
        teacher_VBK = concatenate([group.cls_VBK for group in teacher])
        student_patches, teacher_patches = _patches(student), _patches(teacher)
        cls_loss = self.image_loss(student_VBK, teacher_VBK, teacher_temperature)
        patch_loss = self.patch_loss(student_patches, teacher_patches, teacher_temperature)
        self.image_loss.observe(teacher_VBK)
        self.patch_loss.observe(teacher_patches)
        return {"loss": cls_loss + self.config.weight * patch_loss, "cls_loss": cls_loss, "patch_loss": patch_loss}

    def move(self) -> None:
        """See `Objective.move`."""
        self.image_loss.move()
        self.patch_loss.move()

    def diagnostics(self, teacher: Sequence[ViewOutputs], teacher_temperature: float) -> dict[str, Tensor]:
        """See `Objective.diagnostics`."""
        teacher_VBK = concatenate([group.cls_VBK for group in teacher])
        return prefixed("cls", self.image_loss.diagnostics(teacher_VBK, teacher_temperature)) | prefixed(
            "patch", self.patch_loss.diagnostics(_patches(teacher), teacher_temperature)
        )


def _patches(outputs: Sequence[ViewOutputs]) -> list[Logits]:
    """[V, B, N, K] for each size of crop."""
    patches = [group.patches_VBNK for group in outputs if group.patches_VBNK is not None]
    assert len(patches) == len(outputs)
    return patches
