"""DINO: self-distillation of the CLS token between views (Caron et al., ICCV 2021; facebookresearch/dino 7c446df).

Shapes: V views, B images, N patches, K prototypes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.heads import ProjectionHead
from pretrain.objectives.base import NUM_GLOBAL_CROPS, ImageLoss, PatchLoss, Role, sharpened_targets
from pretrain.objectives.centre import Centre
from pretrain.objectives.diagnostics import distribution_signs


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


class CLSDistillation(ImageLoss):
    """Cross-entropy between the teacher's view of an image and the student's every other view of it."""

    def __init__(self, config: DINOConfig) -> None:
        """Start with a zero centre."""
        super().__init__()
        self.config = config
        self.student_temperature = config.student_temperature
        self.centre = Centre(config.out_dim, config.centre_momentum)

    def head(self, in_dim: int, role: Role) -> ProjectionHead:
        """See `ImageLoss.head`; student and teacher are alike."""
        del role
        return self.config.head(in_dim, self.config.out_dim)

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

    def update(self, teacher_VBK: Tensor) -> None:
        """Move the centre."""
        self.centre.update([teacher_VBK])

    def diagnostics(self, teacher_VBK: Tensor, temperature: float) -> dict[str, Tensor]:
        """Signs of the global views' targets."""
        return distribution_signs([teacher_VBK[:NUM_GLOBAL_CROPS]], self.centre.mean_K, temperature)


class PatchDistillation(PatchLoss):
    """Cross-entropy of each student patch with its own target: DINO's loss on patches, as SelfPatch has it."""

    def __init__(self, config: DINOConfig, out_dim: int) -> None:
        """Start with a zero centre.

        Args:
            config: Head and temperatures, shared with the image-level loss.
            out_dim: Number of patch prototypes.
        """
        super().__init__()
        self.config = config
        self.out_dim = out_dim
        self.centre = Centre(out_dim, config.centre_momentum)

    def head(self, in_dim: int, role: Role) -> ProjectionHead:
        """See `PatchLoss.head`; student and teacher are alike."""
        del role
        return self.config.head(in_dim, self.out_dim)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
        """See `PatchLoss.forward`."""
        total = torch.zeros((), device=self.centre.mean_K.device)
        views = 0
        for student_VBNK, teacher_VBNK in zip(student, teacher, strict=True):
            targets = sharpened_targets(teacher_VBNK, self.centre.mean_K, temperature)
            logits = student_VBNK.float() / self.config.student_temperature
            cross_entropy_VBN = -(targets * torch.log_softmax(logits, dim=-1)).sum(-1)
            total = total + cross_entropy_VBN.mean() * len(logits)
            views += len(logits)
        return total / views

    def update(self, teacher: Sequence[Tensor]) -> None:
        """Move the centre."""
        self.centre.update(teacher)

    def diagnostics(self, teacher: Sequence[Tensor], temperature: float) -> dict[str, Tensor]:
        """Signs of every view's targets."""
        return distribution_signs(teacher, self.centre.mean_K, temperature)
