"""MoBY's losses against its formulas written out, the queue, and the heads."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.heads import MoBYHead, Projections
from pretrain.methods import MoBYConfig
from pretrain.objectives.moby import EmbeddingQueue, ImageContrast, PatchContrast

CONFIG = MoBYConfig(hidden_dim=12, out_dim=5, queue=7)


def views(tensor: Tensor) -> Projections:
    return Projections(list(tensor))


def contrastive_loss(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo's loss as its paper's pseudo-code has it: labels are zero, positives come first."""
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    positive = torch.einsum("nc,nc->n", query, key)[:, None]
    negative = torch.einsum("nc,ck->nk", query, queue)
    logits = torch.cat([positive, negative], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


def test_image_loss_contrasts_each_view_with_the_other() -> None:
    torch.manual_seed(0)
    loss = ImageContrast(CONFIG)
    first_queue, second_queue = (loss.get_buffer(f"queues.{view}.keys_QK").T for view in range(2))
    student, teacher = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    expected = contrastive_loss(student[0], teacher[1], second_queue, 0.2) + contrastive_loss(
        student[1], teacher[0], first_queue, 0.2
    )
    torch.testing.assert_close(loss(views(student), views(teacher), 0.04), expected)


def test_patch_loss_with_and_without_negatives() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    with_negatives, without = PatchContrast(CONFIG, negatives=True), PatchContrast(CONFIG, negatives=False)
    assert with_negatives.queue is not None
    rows = (student.flatten(0, 2), teacher.flatten(0, 2))
    torch.testing.assert_close(
        with_negatives(views(student), views(teacher), 1.0), contrastive_loss(*rows, with_negatives.queue.keys_QK.T, 0.2)
    )
    torch.testing.assert_close(
        without(views(student), views(teacher), 1.0), (F.normalize(rows[0]) - F.normalize(rows[1])).square().sum(-1).mean()
    )
    assert without(views(3 * teacher), views(teacher), 1.0).item() == pytest.approx(0, abs=1e-6)


def test_views_weigh_the_same_whatever_their_number_of_patches() -> None:
    loss = PatchContrast(CONFIG, negatives=False)
    far, near = torch.ones(2, 9, 5), torch.ones(2, 4, 5)
    assert loss(Projections([-far, near, near]), Projections([far, near, near]), 1.0).item() == pytest.approx(4 / 3)


def test_the_queue_replaces_the_oldest() -> None:
    queue = EmbeddingQueue(MoBYConfig(queue=5, out_dim=2))
    keys = F.normalize(torch.arange(1.0, 17.0).view(8, 2), dim=-1)
    for batch in (keys[:3], keys[3:6], keys[6:8]):
        queue.observe(2 * batch)
        queue.move()
    kept = sorted(queue.keys_QK.tolist())
    torch.testing.assert_close(torch.tensor(kept), torch.tensor(sorted(keys[3:].tolist())))
    queue.observe(keys)
    queue.move()
    torch.testing.assert_close(torch.tensor(sorted(queue.keys_QK.tolist())), torch.tensor(sorted(keys[3:].tolist())))


def test_queued_patches_go_round_the_grid() -> None:
    """One target per image and global view; 40 images meet each of 8 positions, where random choice would leave gaps."""
    loss = PatchContrast(MoBYConfig(hidden_dim=4, out_dim=8, queue=80), negatives=True)
    positions = views(torch.eye(8).expand(2, 10, 8, 8))
    assert loss.queue is not None
    for _ in range(4):
        loss(positions, positions, 1.0)
        loss.queue.move()
    counts = loss.queue.keys_QK.sum(0)
    assert counts.sum() == 80
    assert counts.min() >= 8


def test_each_view_has_its_own_statistics() -> None:
    head = MoBYHead(3, CONFIG, "teacher")
    first, second = torch.randn(6, 3), 5 + 2 * torch.randn(6, 3)
    torch.testing.assert_close(head([first, second]).views[1], head([second]).views[0])
