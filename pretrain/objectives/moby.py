"""MoBY: an online network's prediction of one view against a momentum network's projection of the other, among a queue of negatives.

Xie et al., "Self-Supervised Learning with Swin Transformers", 2021; SwinTransformer/Transformer-SSL. Image level: as published (two
queues, one per view; both directions added). The target network here is called teacher; its encoder and projector are the moving
average of the student's, the predictor is the student's alone. Asymmetric drop path: `backbone.drop_path_rate` acts on the student
only. The authors move the teacher before each step's forward pass and we after each update, which is the same sequence of weights
with the momentum schedule shifted by one step.

Patch level: no code of MoBY+SelfPatch was released. Our choice follows from the two published parts: SelfPatch's targets under MoBY's
own loss, with heads of MoBY's kind: InfoNCE against a queue of past patch targets ("with negatives"), or the same without the
negatives, that is BYOL's cosine distance ("without").

Shapes: B images, N patches, K channels of an embedding, Q embeddings kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.distributed import gather_from_processes, rank, world_size
from pretrain.config import PretrainConfig
from pretrain.heads import MoBYHead, Projections, Role
from pretrain.methods import MoBYConfig
from pretrain.objectives.base import NUM_GLOBAL_CROPS, Loss, Objective, RunningState, embedding_diagnostics, spread_evenly


class MoBY(Objective):
    """MoBY as published."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.image_loss = ImageContrast(config.moby)


class EmbeddingQueue(RunningState):
    """The Q newest embeddings of past batches of all processes, the negatives of contrastive losses (MoCo, He et al., CVPR 2020).

    It starts with random directions, as MoCo's and MoBY's do. MoBY's code wants the batch to divide the queue; this one goes round.
    """

    keys_QK: Tensor
    oldest: Tensor

    def __init__(self, config: MoBYConfig) -> None:
        super().__init__()
        self.register_buffer("keys_QK", F.normalize(torch.randn(config.queue, config.out_dim), dim=-1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))
        self._observed: list[Tensor] = []

    def observe(self, keys_BK: Tensor) -> None:
        self._observed.append(keys_BK.detach())

    @torch.no_grad()
    def move(self) -> None:
        """Replace the oldest embeddings by all processes' new ones; of more than Q the last ones stay."""
        size = len(self.keys_QK)
        new = gather_from_processes(F.normalize(torch.cat(self._observed).float(), dim=-1))
        slots = (torch.arange(len(new), device=new.device) + self.oldest)[-size:] % size
        self.keys_QK[slots] = new[-size:]
        self.oldest.add_(len(new)).remainder_(size)
        self._observed = []


def info_nce(queries: Tensor, keys: Tensor, queue_QK: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key [..., K] against it and the queue, by cosine; the mean over queries, in float32."""
    queries = F.normalize(queries.float(), dim=-1)
    positive = (queries * F.normalize(keys.detach().float(), dim=-1)).sum(-1, keepdim=True)
    logits = torch.cat([positive, queries @ queue_QK.T], dim=-1) / temperature
    return (logits.logsumexp(-1) - logits[..., 0]).mean()


class Contrast(Loss):
    def __init__(self, config: MoBYConfig) -> None:
        super().__init__()
        self.config = config

    def head(self, in_dim: int, role: Role) -> nn.Module:
        return MoBYHead(in_dim, self.config, role)


class ImageContrast(Contrast):
    """InfoNCE between the student's prediction of one view and the teacher's projection of the other, in both directions."""

    def __init__(self, config: MoBYConfig) -> None:
        super().__init__(config)
        self.queues = nn.ModuleList(EmbeddingQueue(config) for _ in range(NUM_GLOBAL_CROPS))

    def forward(self, student: Projections, teacher: Projections, temperature: float) -> Tensor:
        """The sum of both directions, each the mean over images."""
        losses = []
        for query_BK, key_BK, queue in zip(student.views, teacher.views[::-1], reversed(self.queues), strict=True):
            losses.append(info_nce(query_BK, key_BK, queue.get_buffer("keys_QK"), self.config.temperature))
            queue.observe(key_BK)  # type: ignore[operator]
        return losses[0] + losses[1]

    def diagnostics(self, teacher: Projections, temperature: float) -> dict[str, Tensor]:
        return embedding_diagnostics(teacher.views, torch.cat([queue.get_buffer("keys_QK") for queue in self.queues]))


class PatchContrast(Contrast):
    """MoBY's loss between each student patch and its own target, with a queue of past targets or without negatives.

    A batch has some hundred times as many patches as images, which would flush the queue at every step. It takes one patch target
    of each global view instead, from positions that go evenly round the grid, so that it spans as many images as MoBY's own.
    """

    seen: Tensor  # how many images of all processes the queue has seen

    def __init__(self, config: MoBYConfig, negatives: bool) -> None:
        super().__init__(config)
        self.queue = EmbeddingQueue(config) if negatives else None
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Projections, teacher: Projections, temperature: float) -> Tensor:
        """The mean over patches and images, then over views: a local view weighs as much as a global one."""
        losses = []
        for student_BNK, teacher_BNK in zip(student.views, teacher.views, strict=True):
            if self.queue is None:
                # 2 - 2 cos(query, key), BYOL's loss (Grill et al., NeurIPS 2020).
                cosines_BN = F.cosine_similarity(student_BNK.float(), teacher_BNK.detach().float(), dim=-1)
                losses.append(2 - 2 * cosines_BN.mean())
            else:
                losses.append(info_nce(student_BNK, teacher_BNK, self.queue.keys_QK, self.config.temperature))
        if self.queue is not None:
            images, patches, _ = teacher.views[0].shape
            # By its number among all images that were seen: what is queued must not depend on how many processes there are.
            local_B = torch.arange(images, device=self.seen.device)
            numbers_B = self.seen + local_B * world_size() + rank()
            for targets_BNK in teacher.views[:NUM_GLOBAL_CROPS]:
                self.queue.observe(targets_BNK[local_B, spread_evenly(numbers_B, patches)])
            self.seen.add_(images * world_size())
        return torch.stack(losses).mean()

    def diagnostics(self, teacher: Projections, temperature: float) -> dict[str, Tensor]:
        return embedding_diagnostics(teacher.views, None if self.queue is None else self.queue.keys_QK)
