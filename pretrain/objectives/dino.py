"""DINO: self-distillation of the CLS token between views (Caron et al., ICCV 2021; facebookresearch/dino 7c446df).

Shapes: V views, B images, K prototypes, D channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, ViTSpec
from pretrain.heads import ProjectionHead
from pretrain.objectives.base import (
    NUM_GLOBAL_CROPS,
    Objective,
    Role,
    ViewLogits,
    group_by_size,
    sharpened_targets,
    split_views,
)
from pretrain.objectives.centre import Centre


@dataclass(kw_only=True)
class DINOConfig:
    """The image-level loss."""

    out_dim: int = 65536
    """Number of prototypes of the CLS head."""
    hidden_dim: int = 2048
    """Width of the hidden layers of every projection head."""
    bottleneck_dim: int = 256
    """Width of the normalised embedding in every projection head."""
    norm_last_layer: bool = True
    """Keep every prototype at length 1. DINO advises True for small backbones; its VISSL run used False."""
    student_temperature: float = 0.1
    """Sharpening of the student's probabilities, CLS and patches."""
    teacher_temperature: float = 0.04
    """Sharpening of the teacher's probabilities after the warm-up, CLS and patches."""
    warmup_teacher_temperature: float = 0.04
    """Sharpening of the teacher's probabilities in the first epoch."""
    warmup_teacher_temperature_epochs: int = 0
    """Epochs over which the teacher's temperature rises linearly."""
    centre_momentum: float = 0.9
    """Weight of the past in the running centres."""

    def __post_init__(self) -> None:
        """Reject values without meaning."""
        for name in ("student_temperature", "teacher_temperature", "warmup_teacher_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"dino.{name}={getattr(self, name)} must be positive")
        if not 0 <= self.centre_momentum < 1:
            raise ValueError(f"dino.centre_momentum={self.centre_momentum} must be in [0, 1)")
        for name in ("out_dim", "hidden_dim", "bottleneck_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"dino.{name}={getattr(self, name)} must be at least 1")

    def head(self, in_dim: int, out_dim: int) -> ProjectionHead:
        """A projection head of this configuration."""
        return ProjectionHead(in_dim, out_dim, self.hidden_dim, self.bottleneck_dim, self.norm_last_layer)


class CLSDistillation(nn.Module):
    """Cross-entropy between the teacher's view of an image and the student's every other view of it."""

    def __init__(self, config: DINOConfig) -> None:
        """Start with a zero centre."""
        super().__init__()
        self.student_temperature = config.student_temperature
        self.centre = Centre(config.out_dim, config.centre_momentum)

    def forward(self, student_VBK: Tensor, teacher_VBK: Tensor, temperature: float) -> Tensor:
        """The loss, a scalar: the mean over pairs (global teacher view, other student view) and images.

        With 2 global and 8 local crops these are 18 pairs. Computed in float32.

        Args:
            student_VBK: Logits of every view, global ones first.
            teacher_VBK: Logits of the global views at least; further views are not used as targets.
            temperature: Sharpening of the targets.
        """
        views = len(student_VBK)
        targets_GBK = sharpened_targets(teacher_VBK[:NUM_GLOBAL_CROPS], self.centre.mean_K, temperature)
        total = student_VBK.new_zeros((), dtype=torch.float32)
        for view in range(views):
            others = [index for index in range(NUM_GLOBAL_CROPS) if index != view]
            log_probabilities_BK = torch.log_softmax(student_VBK[view].float() / self.student_temperature, dim=-1)
            # The targets enter linearly, so their sum serves all pairs of one student view at once.
            total = total - (targets_GBK[others].sum(0) * log_probabilities_BK).sum(-1).mean()
        return total / (NUM_GLOBAL_CROPS * (views - 1))


class DINONetwork(nn.Module):
    """A ViT with its own CLS token, and the projection head on it."""

    def __init__(self, spec: BackboneSpec, config: DINOConfig, drop_path_rate: float) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict({"cls": config.head(spec.embed_dim, config.out_dim)})  # type: ignore[union-attr]

    def forward(self, crops: Sequence[Tensor]) -> list[ViewLogits]:
        """See `Objective.build_network`."""
        groups = group_by_size(crops)
        cls = [self.backbone.forward_tokens(torch.cat(group)).cls for group in groups]
        return [
            ViewLogits(split_views(self.heads["cls"](cls_BD), len(group))) for cls_BD, group in zip(cls, groups, strict=True)
        ]


class DINOObjective(Objective):
    """DINO as published: CLS token and final norm in the backbone; the teacher sees the two global crops."""

    def __init__(self, config: DINOConfig) -> None:
        """Store the configuration; centres start at zero."""
        super().__init__()
        self.config = config
        self.cls_distillation = CLSDistillation(config)

    def backbone_spec(self, architecture: Mapping[str, int], image_size: int) -> BackboneSpec:
        """See `Objective.backbone_spec`."""
        return ViTSpec(**architecture, image_size=image_size, class_token=True, final_norm=True)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """See `Objective.build_network`; student and teacher are alike."""
        del role
        return DINONetwork(spec, self.config, drop_path_rate)

    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """The global crops."""
        return crops[:NUM_GLOBAL_CROPS]

    def forward(
        self, student: Sequence[ViewLogits], teacher: Sequence[ViewLogits], teacher_temperature: float
    ) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        student_VBK = torch.cat([group.cls_VBK for group in student])
        teacher_VBK = torch.cat([group.cls_VBK for group in teacher])
        loss = self.cls_distillation(student_VBK, teacher_VBK, teacher_temperature)
        self.cls_distillation.centre.update([teacher_VBK])
        return {"loss": loss}
