"""An image-level loss alone: DINO or MoBY as published.

Shapes: V views, B images, D channels, K prototypes or channels of an embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec
from pretrain.objectives.base import (
    NUM_GLOBAL_CROPS,
    ImageLoss,
    Objective,
    Role,
    ViewOutputs,
    backbone_spec,
    group_by_size,
    split_views,
    token_width,
)
from pretrain.objectives.diagnostics import prefixed
from pretrain.prototype_logits import concatenate


class ImageLevelNetwork(nn.Module):
    """A backbone and a projection head on its image-level token."""

    def __init__(self, spec: BackboneSpec, loss: ImageLoss, drop_path_rate: float, role: Role) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict({"cls": loss.head(token_width(self.backbone), role)})

    def forward(self, crops: Sequence[Tensor]) -> list[ViewOutputs]:
        """See `Objective.build_network`."""
        cls = []
        for group in group_by_size(crops):
            cls_BD, patches_BND, _ = self.backbone.forward_tokens(torch.cat(group))
            # Swin has no CLS token; its image-level feature is the mean of the last stage.
            cls.append(split_views(patches_BND.mean(1) if cls_BD is None else cls_BD, len(group)))
        return [ViewOutputs(cls_VBK) for cls_VBK in self.heads["cls"](cls)]


class ImageLevelObjective(Objective):
    """CLS token and final norm in the backbone; the teacher sees the two global crops."""

    def __init__(self, image_loss: ImageLoss) -> None:
        """Store the loss."""
        super().__init__()
        self.image_loss = image_loss

    def backbone_spec(self, architecture: Mapping[str, Any], image_size: int) -> BackboneSpec:
        """See `Objective.backbone_spec`."""
        return backbone_spec(architecture, image_size, class_token=True)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """See `Objective.build_network`."""
        return ImageLevelNetwork(spec, self.image_loss, drop_path_rate, role)

    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """The global crops."""
        return crops[:NUM_GLOBAL_CROPS]

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
        loss = self.image_loss(student_VBK, teacher_VBK, teacher_temperature)
        self.image_loss.observe(teacher_VBK)
        return {"loss": loss}

    def move(self) -> None:
        """See `Objective.move`."""
        self.image_loss.move()

    def diagnostics(self, teacher: Sequence[ViewOutputs], teacher_temperature: float) -> dict[str, Tensor]:
        """See `Objective.diagnostics`."""
        teacher_VBK = concatenate([group.cls_VBK for group in teacher])
        return prefixed("cls", self.image_loss.diagnostics(teacher_VBK, teacher_temperature))
