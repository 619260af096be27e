"""MoBY: an online network's prediction of one view against a momentum network's projection of the other, among a queue of negatives.

Xie et al., "Self-Supervised Learning with Swin Transformers", 2021; SwinTransformer/Transformer-SSL. Image level: as published (two
queues, one per view; both directions added). The target network here is called teacher; its encoder and projector are the moving
average of the student's, the predictor is the student's alone. Asymmetric drop path: `backbone.drop_path_rate` acts on the student
only. The authors move the teacher before each step's forward pass and we after each update, which is the same sequence of weights
with the momentum schedule shifted by one step.

Patch level: no code of MoBY+SelfPatch was released. Our choice follows from the two published parts: SelfPatch's targets under MoBY's
own loss, with heads of MoBY's kind: InfoNCE against a queue of past patch targets ("with negatives"), or the same without the
negatives, that is BYOL's cosine distance ("without").

Shapes: V views, B images, N patches, D channels of a token, K channels of an embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretrain.config import MoBYConfig
from pretrain.distributed import rank, world_size
from pretrain.normalisation import SynchronisedBatchNorm
from pretrain.objectives.base import NUM_GLOBAL_CROPS, ImageLoss, PatchLoss, Role
from pretrain.objectives.diagnostics import embedding_signs
from pretrain.objectives.queue import EmbeddingQueue, cosine_distance, info_nce
from pretrain.prototype_logits import Logits, values

_GOLDEN_RATIO = (5**0.5 - 1) / 2


class MoBYHead(nn.Module):
    """A two-layer projector and, in the student, a two-layer predictor; hidden layers have batch normalisation over all processes."""

    def __init__(self, in_dim: int, config: MoBYConfig, role: Role) -> None:
        """Build with torch's default initialisation, as the authors do.

        Args:
            in_dim: D.
            config: Widths.
            role: The teacher has no predictor.
        """
        super().__init__()
        self.projector = _mlp(in_dim, config.hidden_dim, config.out_dim)
        self.predictor = _mlp(config.out_dim, config.hidden_dim, config.out_dim) if role == "student" else nn.Identity()

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Tensors [V, ..., D] -> [V, ..., K]; each view is normalised by its own statistics, since MoBY passes views one by one."""
        return [torch.stack([self.predictor(self.projector(view)) for view in views]) for views in tokens]


def _mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), SynchronisedBatchNorm(hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
    )


class ImageContrast(ImageLoss):
    """InfoNCE between the student's prediction of one view and the teacher's projection of the other, in both directions."""

    def __init__(self, config: MoBYConfig) -> None:
        """Start with queues of random directions."""
        super().__init__()
        self.config = config
        self.queues = nn.ModuleList(EmbeddingQueue(config.queue, config.out_dim) for _ in range(NUM_GLOBAL_CROPS))

    def head(self, in_dim: int, role: Role) -> nn.Module:
        """See `ImageLoss.head`; the teacher has no predictor."""
        return MoBYHead(in_dim, self.config, role)

    def forward(self, student_VBK: Logits, teacher_VBK: Logits, temperature: float) -> Tensor:
        """See `ImageLoss.forward`: the sum of both directions, each the mean over images; MoBY has two views and sharpens nothing."""
        del temperature
        student_VBK, teacher_VBK = values(student_VBK), values(teacher_VBK)
        assert len(student_VBK) == len(teacher_VBK) == NUM_GLOBAL_CROPS
        first, second = (
            info_nce(student_VBK[view], teacher_VBK[1 - view], self._queue(1 - view), self.config.temperature)
            for view in range(NUM_GLOBAL_CROPS)
        )
        return first + second

    def observe(self, teacher_VBK: Logits) -> None:
        """Take note of each view's projections."""
        for view, projections_BK in enumerate(values(teacher_VBK)):
            self._queue(view).observe(projections_BK)

    def move(self) -> None:
        """Queue each view's projections."""
        for view in range(NUM_GLOBAL_CROPS):
            self._queue(view).move()

    def diagnostics(self, teacher_VBK: Logits, temperature: float) -> dict[str, Tensor]:
        """Signs of both views' projections, beside those of both queues."""
        del temperature
        return embedding_signs(
            [values(teacher_VBK)], torch.cat([self._queue(view).keys_QK for view in range(NUM_GLOBAL_CROPS)])
        )

    def _queue(self, view: int) -> EmbeddingQueue:
        queue = self.queues[view]
        assert isinstance(queue, EmbeddingQueue)
        return queue


class PatchContrast(PatchLoss):
    """MoBY's loss between each student patch and its own target, with a queue of past targets or without negatives.

    A batch has some hundred times as many patches as images, which would flush the queue at every step. It takes one patch target
    of each global view instead, from positions that go evenly round the grid, so that it spans as many images as MoBY's own.
    """

    seen: Tensor

    def __init__(self, config: MoBYConfig, negatives: bool) -> None:
        """Start with a queue of random directions.

        Args:
            config: Heads, temperature and length of the queue.
            negatives: InfoNCE against the queue if true, else cosine distance.
        """
        super().__init__()
        self.config = config
        self.queue = EmbeddingQueue(config.queue, config.out_dim) if negatives else None
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._observed = 0

    def head(self, in_dim: int, role: Role) -> nn.Module:
        """See `PatchLoss.head`; the teacher has no predictor."""
        return MoBYHead(in_dim, self.config, role)

    def forward(self, student: Sequence[Logits], teacher: Sequence[Logits], temperature: float) -> Tensor:
        """See `PatchLoss.forward`."""
        del temperature
        total = torch.zeros((), device=self.seen.device)
        for student_VBNK, teacher_VBNK in zip(map(values, student), map(values, teacher), strict=True):
            if self.queue is None:
                loss = cosine_distance(student_VBNK, teacher_VBNK)
            else:
                loss = info_nce(student_VBNK, teacher_VBNK, self.queue, self.config.temperature)
            total = total + loss * len(student_VBNK)
        return total / sum(len(views) for views in student)

    @torch.no_grad()
    def observe(self, teacher: Sequence[Logits]) -> None:
        """Take note of one target per global view and image."""
        if self.queue is None:
            return
        targets_VBNK = values(teacher[0])
        views, images, patches, _ = targets_VBNK.shape
        # Numbers of this process's images among all that were seen: what is queued must not depend on how many processes there are.
        local_B = torch.arange(images, device=self.seen.device)
        numbers_B = self.seen + (self._observed + local_B) * world_size() + rank()
        positions_B = (numbers_B.double() * _GOLDEN_RATIO % 1 * patches).long().clamp(max=patches - 1)
        for view in range(min(views, NUM_GLOBAL_CROPS)):
            self.queue.observe(targets_VBNK[view, local_B, positions_B])
        self._observed += images

    def move(self) -> None:
        """Queue what was observed."""
        if self.queue is not None:
            self.queue.move()
            self.seen.add_(self._observed * world_size())
            self._observed = 0

    def diagnostics(self, teacher: Sequence[Logits], temperature: float) -> dict[str, Tensor]:
        """Signs of every view's targets."""
        del temperature
        return embedding_signs(list(map(values, teacher)), None if self.queue is None else self.queue.keys_QK)
