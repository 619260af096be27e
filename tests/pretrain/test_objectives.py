"""What the recordings of the authors' code do not show of objectives: half precision, centres, clamped neighbourhoods."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.heads import ProjectionHead, Projections
from pretrain.methods import DINOConfig
from pretrain.objectives.dino import Centre, PatchDistillation
from pretrain.objectives.selfpatch import Aggregation, candidate_table, select_positives


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
def test_the_centre_moves_by_the_mean_of_all_rows(positions: int) -> None:
    """Of views with different numbers of images, and of logits that are not made one by one."""
    torch.manual_seed(4)
    teacher = Projections([torch.randn(2, 3, 5), torch.randn(4, 3, 5)], torch.randn(7, 5))
    centre = Centre(7, 0.9, positions)
    centre.observe(teacher)
    centre.move()
    rows = torch.cat([teacher.logits(view) for view in teacher.views])
    torch.testing.assert_close(centre.mean_K, 0.1 * rows.mean(0 if positions else (0, 1)))


@settings(max_examples=50, deadline=None)
@given(h=st.integers(3, 9), w=st.integers(3, 9), window=st.sampled_from([3, 5, 7]))
def test_neighbourhoods_are_windows(h: int, w: int, window: int) -> None:
    """Clamped, they are the recorded ones that wrap round, but at the border, where none reaches the other side."""
    if window > min(h, w):
        with pytest.raises(ValueError, match="window"):
            candidate_table((h, w), window)
        return
    radius = window // 2
    wrapped, clamped = ([set(row) for row in candidate_table((h, w), window, border).tolist()] for border in ("wrap", "clamp"))
    assert len(wrapped) == len(clamped) == h * w
    for patch in range(h * w):
        y, x = divmod(patch, w)
        assert len(wrapped[patch]) == len(clamped[patch] - {patch}) == window**2 - 1
        assert all(max(abs(other // w - y), abs(other % w - x)) < window for other in clamped[patch])
        if radius <= y < h - radius and radius <= x < w - radius:
            assert clamped[patch] == wrapped[patch]


def test_average_of_the_positives() -> None:
    aggregation = Aggregation(dim=6, num_heads=2)
    patches, positives = torch.randn(2, 4, 6), torch.tensor([[[1, 2]] * 4, [[0, 3]] * 4])
    averages = aggregation.patch_averages(patches, positives)
    torch.testing.assert_close(averages[1, 2], aggregation.norm((patches[1, 0] + patches[1, 3]) / 2))


@pytest.mark.parametrize(("kept", "frozen"), [(True, ["last_layer.parametrizations.weight.original0"]), (False, [])])
def test_prototypes_start_at_length_one_and_may_stay_there(kept: bool, frozen: list[str]) -> None:
    head = ProjectionHead(8, 5, DINOConfig(hidden_dim=6, bottleneck_dim=4, norm_last_layer=kept))
    torch.testing.assert_close(head.last_layer.weight.norm(dim=1), torch.ones(5))
    assert [name for name, parameter in head.named_parameters() if not parameter.requires_grad] == frozen
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head([torch.randn(2, 8)]).views[0].dtype == torch.bfloat16


def test_positives_are_chosen_in_float32_under_autocast() -> None:
    """In bfloat16 other patches were chosen than the similarities have it."""
    patches_BND = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    patches_BND += 5 * patches_BND[:, :1]  # nearly alike, as a network's patches are
    expected = select_positives(patches_BND, (8, 8), 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(select_positives(patches_BND, (8, 8), 3, 4), expected)
    with pytest.raises(ValueError, match="k=9"):
        select_positives(patches_BND, (8, 8), 3, 9)
