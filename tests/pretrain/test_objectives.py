"""Objectives against the authors' formulas written out, and the geometry of neighbourhoods."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pretrain.heads import ProjectionHead, Projections
from pretrain.methods import ALL_PATCHES, DINOConfig
from pretrain.objectives.aggregation import Aggregation
from pretrain.objectives.dino import Centre, CLSDistillation, PatchDistillation
from pretrain.objectives.selfpatch import candidate_table, select_positives


def dino_loss_pair_by_pair(student: Tensor, teacher: Tensor, centre: Tensor, student_t: float, teacher_t: float) -> Tensor:
    """The double loop of facebookresearch/dino 7c446df, DINOLoss.forward."""
    losses = []
    for iq, q in enumerate(F.softmax((teacher[:2] - centre) / teacher_t, dim=-1)):
        for v, logits in enumerate(student):
            if v != iq:
                losses.append(torch.sum(-q * F.log_softmax(logits / student_t, dim=-1), dim=-1).mean())
    return sum(losses) / len(losses)  # type: ignore[return-value]


@pytest.mark.parametrize("views", [2, 4, 10])
def test_cls_loss_is_the_mean_over_pairs(views: int) -> None:
    torch.manual_seed(views)
    distillation = CLSDistillation(DINOConfig(), 7)
    distillation.centre.mean_K.normal_()
    student, teacher = torch.randn(views, 3, 7), torch.randn(2, 3, 7)
    expected = dino_loss_pair_by_pair(student, teacher, distillation.centre.mean_K, 0.1, 0.04)
    found = distillation(Projections(list(student)), Projections(list(teacher)), 0.04)
    torch.testing.assert_close(found, expected)


def test_patch_loss_weighs_views_alike() -> None:
    """Two views of 2 x 3 patches and one of 2 x 2."""
    torch.manual_seed(1)
    distillation = PatchDistillation(DINOConfig(), out_dim=7)
    distillation.centre.mean_K.normal_()
    shapes = [(2, 3, 5), (2, 3, 5), (2, 2, 5)]
    prototypes, teacher_prototypes = torch.randn(7, 5), torch.randn(7, 5)
    student, teacher = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    losses = []
    for student_view, teacher_view in zip(student, teacher, strict=True):
        targets = F.softmax((teacher_view @ teacher_prototypes.T - distillation.centre.mean_K) / 0.04, dim=-1)
        log_probabilities = F.log_softmax(student_view @ prototypes.T / 0.1, dim=-1)
        losses.append(torch.sum(-targets * log_probabilities, dim=-1).mean())
    found = distillation(Projections(student, prototypes), Projections(teacher, teacher_prototypes), 0.04)
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_losses_of_bfloat16_embeddings_are_float32() -> None:
    torch.manual_seed(3)
    embeddings, prototypes = F.normalize(torch.randn(1, 11, 5), dim=-1), torch.randn(7, 5, requires_grad=True)
    losses, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        distillation = PatchDistillation(DINOConfig(student_temperature=1.0), out_dim=7)
        student = Projections([embeddings.to(dtype)], prototypes)
        losses.append(distillation(student, Projections([torch.zeros(1, 11, 7)]), 1.0))
        gradients.append(torch.autograd.grad(losses[-1], prototypes)[0])
    assert losses[1].dtype == gradients[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], atol=0.02, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=0.02, rtol=0)


@pytest.mark.parametrize("positions", [0, 3])
def test_the_centre_of_products_is_that_of_the_logits(positions: int) -> None:
    torch.manual_seed(4)
    by_factors = Projections([torch.randn(2, 3, 5), torch.randn(4, 3, 5)], torch.randn(7, 5))
    by_logits = Projections([by_factors.logits(view) for view in by_factors.views])
    centres = []
    for teacher in (by_factors, by_logits):
        centre = Centre(7, 0.9, positions)
        centre.observe(teacher)
        centre.move()
        centres.append(centre.mean_K)
    torch.testing.assert_close(*centres)


def test_centre_weighs_rows_not_tensors() -> None:
    centre = Centre(1, momentum=0.5)
    centre.observe(Projections([torch.full((3, 2, 1), 4.0), torch.full((2, 1), 0.0)]))
    centre.move()
    assert centre.mean_K.item() == pytest.approx(0.5 * 24 / 8)


@settings(max_examples=50, deadline=None)
@given(h=st.integers(3, 9), w=st.integers(3, 9), window=st.sampled_from([3, 5, 7]))
def test_neighbourhoods_are_windows(h: int, w: int, window: int) -> None:
    """Symmetric ones that wrap round; clamped, they are the same inside the image, and at the border none reaches the other side."""
    if window > min(h, w):
        with pytest.raises(ValueError, match="window"):
            candidate_table((h, w), window)
        return
    radius = window // 2
    wrapped, clamped = ([set(row) for row in candidate_table((h, w), window, border).tolist()] for border in ("wrap", "clamp"))
    assert len(wrapped) == len(clamped) == h * w
    for patch in range(h * w):
        y, x = divmod(patch, w)
        for row in (wrapped[patch], clamped[patch]):
            assert len(row) == window**2 - 1
            assert patch not in row
        assert all(patch in wrapped[other] for other in wrapped[patch])
        assert all(max(abs(other // w - y), abs(other % w - x)) < window for other in clamped[patch])
        if radius <= y < h - radius and radius <= x < w - radius:
            assert clamped[patch] == wrapped[patch]


def test_the_corner_wraps_round_or_stays() -> None:
    assert set(candidate_table((14, 14), 3)[0].tolist()) == {1, 13, 14, 15, 27, 182, 183, 195}
    assert candidate_table((14, 14), 3, "clamp")[0].tolist() == [1, 2, 14, 15, 16, 28, 29, 30]


def test_average_of_the_positives() -> None:
    aggregation = Aggregation(dim=6, num_heads=2)
    patches, positives = torch.randn(2, 4, 6), torch.tensor([[[1, 2]] * 4, [[0, 3]] * 4])
    averages = aggregation.patch_averages(patches, positives)
    torch.testing.assert_close(averages[1, 2], aggregation.norm((patches[1, 0] + patches[1, 3]) / 2))


def test_all_patches() -> None:
    table = candidate_table((2, 3), ALL_PATCHES)
    assert [set(row) for row in table.tolist()] == [set(range(6)) - {patch} for patch in range(6)]


def test_positives_are_the_most_similar_candidates() -> None:
    patches = torch.randn(2, 16, 8)
    positives = select_positives(patches, (4, 4), 3, 2)
    table = candidate_table((4, 4), 3)
    for image in range(2):
        for patch in range(16):
            similarity = F.cosine_similarity(patches[image, patch][None], patches[image, table[patch]], dim=-1)
            expected = set(table[patch][similarity.topk(2).indices].tolist())
            assert set(positives[image, patch].tolist()) == expected
    with pytest.raises(ValueError, match="k=9"):
        select_positives(patches, (4, 4), 3, 9)


def test_summary_of_all_patches_is_the_image_cls() -> None:
    """The two uses of the aggregation module agree where they mean the same set."""
    torch.manual_seed(0)
    aggregation = Aggregation(dim=12, num_heads=3)
    patches = torch.randn(2, 9, 12)
    everything = torch.arange(9).expand(2, 9, 9)
    expected = aggregation.image_cls(patches)[:, None].expand(-1, 9, -1)
    torch.testing.assert_close(aggregation.patch_summaries(patches, everything), expected)


def test_head_normalises_and_keeps_prototypes_at_length_one() -> None:
    config = DINOConfig(hidden_dim=6, bottleneck_dim=4)
    head = ProjectionHead(8, 5, config)
    projections = head([torch.randn(2, 8), torch.randn(2, 3, 8)])
    assert [tuple(projections.logits(view).shape) for view in projections.views] == [(2, 5), (2, 3, 5)]
    assert projections.logits(projections.views[1]).abs().max() <= 1 + 1e-6
    frozen = [name for name, parameter in head.named_parameters() if not parameter.requires_grad]
    assert frozen == ["last_layer.parametrizations.weight.original0"]
    config.norm_last_layer = False
    assert all(parameter.requires_grad for parameter in ProjectionHead(8, 5, config).parameters())


def test_positives_are_chosen_in_float32_under_autocast() -> None:
    """In bfloat16 other patches were chosen than the similarities have it."""
    patches_BND = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    patches_BND += 5 * patches_BND[:, :1]  # nearly alike, as a network's patches are
    expected = select_positives(patches_BND, (8, 8), 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(select_positives(patches_BND, (8, 8), 3, 4), expected)
