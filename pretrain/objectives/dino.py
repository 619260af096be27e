"""DINO: self-distillation of the CLS token between views (Caron et al., ICCV 2021; facebookresearch/dino 7c446df).

Shapes: B images, N patches, D channels of an embedding, K prototypes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import sum_over_processes
from pretrain.config import PretrainConfig
from pretrain.heads import ProjectionHead, Projections, Role
from pretrain.methods import DINOConfig
from pretrain.objectives.base import NUM_GLOBAL_CROPS, Loss, Objective, RunningState, distribution_diagnostics


class DINO(Objective):
    """DINO as published; CLS token and final norm belong to the backbone."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.image_loss = CLSDistillation(config.dino, config.dino.out_dim)


class Centre(RunningState):
    """An exponential moving average over steps of the teacher's mean logits, over all processes.

    Subtracted from the targets, it keeps all prototypes in use (facebookresearch/dino 7c446df, DINOLoss.update_center). With
    `positions` N there is a mean for each of them (PW-Self), [N, K] instead of [K].
    """

    mean_K: Tensor

    def __init__(self, dim: int, momentum: float, positions: int = 0) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean_K", torch.zeros((positions, dim) if positions else dim))
        self._sum, self._rows = torch.zeros(()), 0

    @torch.no_grad()
    def observe(self, teacher: Projections) -> None:
        axes = self.mean_K.ndim
        # The sum of products is the product of the sum: logits are not needed one by one.
        embeddings = torch.stack([view.flatten(0, -1 - axes).float().sum(0) for view in teacher.views]).sum(0)
        self._sum = self._sum + teacher.logits(embeddings)
        self._rows += sum(view.shape[:-axes].numel() for view in teacher.views)

    @torch.no_grad()
    def move(self) -> None:
        total, count = sum_over_processes(self._sum, self._sum.new_full((), float(self._rows)))
        self.mean_K.lerp_(total / count, 1 - self.momentum)
        self._sum, self._rows = torch.zeros(()), 0


class Distillation(Loss):
    def __init__(self, config: DINOConfig, out_dim: int) -> None:
        super().__init__()
        self.config, self.out_dim = config, out_dim
        self.centre = Centre(out_dim, config.centre_momentum)

    def head(self, in_dim: int, role: Role) -> ProjectionHead:
        return ProjectionHead(in_dim, self.out_dim, self.config)

    def diagnostics(self, teacher: Projections, temperature: float) -> dict[str, Tensor]:
        return distribution_diagnostics(teacher, self.centre.mean_K, temperature)


class CLSDistillation(Distillation):
    """Cross-entropy between the teacher's view of an image and the student's every other view of it."""

    def forward(self, student: Projections, teacher: Projections, temperature: float) -> Tensor:
        """The mean over pairs (global teacher view, other student view) and images; 18 pairs with 2 global and 8 local crops."""
        losses = pair_losses(student, teacher, self.centre.mean_K, temperature, self.config.student_temperature)
        self.centre.observe(teacher)
        return torch.stack([losses_B.mean() for losses_B in losses.values()]).mean()

    def diagnostics(self, teacher: Projections, temperature: float) -> dict[str, Tensor]:
        return super().diagnostics(teacher._replace(views=teacher.views[:NUM_GLOBAL_CROPS]), temperature)


class PatchDistillation(Distillation):
    """Cross-entropy of each student patch with the target of the same patch in the same view: DINO's loss as SelfPatch has it."""

    def forward(self, student: Projections, teacher: Projections, temperature: float) -> Tensor:
        """The mean over patches and images, then over views: a local view weighs as much as a global one."""
        losses = []
        for logits_BNK, teacher_BND in zip(student.logits_by_view(), teacher.views, strict=True):
            targets_BNK = F.softmax((teacher.logits(teacher_BND) - self.centre.mean_K) / temperature, dim=-1)
            log_probabilities_BNK = F.log_softmax(logits_BNK / self.config.student_temperature, dim=-1)
            losses.append(-(targets_BNK * log_probabilities_BNK).sum(-1).mean())
        self.centre.observe(teacher)
        return torch.stack(losses).mean()


def pair_losses(
    student: Projections, teacher: Projections, centre_K: Tensor, teacher_temperature: float, student_temperature: float
) -> dict[tuple[int, int], Tensor]:
    """DINO's cross-entropies [B] in float32 by (global teacher view, other student view); further teacher views are no targets."""
    teacher_logits = [teacher.logits(view_BD) for view_BD in teacher.views[:NUM_GLOBAL_CROPS]]
    targets = [F.softmax((logits_BK - centre_K) / teacher_temperature, dim=-1) for logits_BK in teacher_logits]
    losses = {}
    for view, logits_BK in enumerate(student.logits_by_view()):
        log_probabilities_BK = F.log_softmax(logits_BK / student_temperature, dim=-1)
        for target, targets_BK in enumerate(targets):
            if target != view:
                losses[target, view] = -(targets_BK * log_probabilities_BK).sum(-1)
    return losses
