"""DINO: self-distillation of the CLS token between views (Caron et al., ICCV 2021; facebookresearch/dino 7c446df).

Shapes: V views, G global views, B images, N patches, R rows, r some of them, K prototypes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pretrain.config import DINOConfig
from pretrain.heads import ProjectionHead, projection_head
from pretrain.objectives.base import NUM_GLOBAL_CROPS, ImageLoss, PatchLoss, Role
from pretrain.objectives.centre import Centre
from pretrain.objectives.cross_entropy import SharpenedTargets, weighted_cross_entropy
from pretrain.objectives.diagnostics import distribution_signs
from pretrain.prototype_logits import Logits, concatenate, flat_rows


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
        return projection_head(in_dim, self.config.out_dim, self.config)

    def forward(self, student_VBK: Logits, teacher_VBK: Logits, temperature: float) -> Tensor:
        """The loss, a scalar: the mean over pairs (global teacher view, other student view) and images.

        With 2 global and 8 local crops these are 18 pairs. Computed in float32.

        Args:
            student_VBK: Logits of every view, global ones first.
            teacher_VBK: Logits of the global views at least; further views are not used as targets.
            temperature: Sharpening of the targets.
        """
        views, images, _ = student_VBK.shape
        sharpen = SharpenedTargets(teacher_VBK[:NUM_GLOBAL_CROPS], self.centre.mean_K, temperature)
        targets_GBK = sharpen(slice(None)).unflatten(0, (NUM_GLOBAL_CROPS, images))
        # The targets enter linearly, so the mean of a student view's targets serves all its pairs at once: for a global view the
        # other one's, for a local view that of both.
        kinds_RK = torch.cat([targets_GBK.flip(0), targets_GBK.mean(0, keepdim=True)]).flatten(0, 1)
        view_V = torch.arange(views, device=kinds_RK.device)
        kind_R = (view_V.clamp(max=NUM_GLOBAL_CROPS)[:, None] * images + torch.arange(images, device=kinds_RK.device)).flatten()
        pairs_V = NUM_GLOBAL_CROPS - (view_V < NUM_GLOBAL_CROPS).int()
        weights_R = (pairs_V / pairs_V.sum() / images).repeat_interleave(images)
        loss, _ = weighted_cross_entropy(student_VBK, lambda rows: kinds_RK[kind_R[rows]], weights_R, self.student_temperature)
        return loss

    def observe(self, teacher_VBK: Logits) -> None:
        """Take note for the centre."""
        self.centre.observe([teacher_VBK])

    def move(self) -> None:
        """Move the centre."""
        self.centre.move()

    def diagnostics(self, teacher_VBK: Logits, temperature: float) -> dict[str, Tensor]:
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
        return projection_head(in_dim, self.out_dim, self.config)

    def forward(self, student: Sequence[Logits], teacher: Sequence[Logits], temperature: float) -> Tensor:
        """See `PatchLoss.forward`."""
        # Of each size of crop: (views, rows of one view).
        sizes = [(len(views_VBNK), views_VBNK.shape[1:-1].numel()) for views_VBNK in student]
        views = sum(count for count, _ in sizes)
        weights_R = torch.cat(
            [torch.full((count * rows,), 1 / (views * rows), device=self.centre.mean_K.device) for count, rows in sizes]
        )
        student_RK, teacher_RK = (concatenate([flat_rows(group) for group in role]) for role in (student, teacher))
        targets = SharpenedTargets(teacher_RK, self.centre.mean_K, temperature)
        loss, _ = weighted_cross_entropy(student_RK, targets, weights_R, self.config.student_temperature)
        return loss

    def observe(self, teacher: Sequence[Logits]) -> None:
        """Take note for the centre."""
        self.centre.observe(teacher)

    def move(self) -> None:
        """Move the centre."""
        self.centre.move()

    def diagnostics(self, teacher: Sequence[Logits], temperature: float) -> dict[str, Tensor]:
        """Signs of every view's targets."""
        return distribution_signs(teacher, self.centre.mean_K, temperature)
