from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eval.davis import affinity
from tests.references import davis_propagation as reference

Mix = Callable[[Tensor, Tensor, int, float], Tensor]


def reference_labels(target_hwD: Tensor, context: Tensor, labels: Tensor, radius: int, topk: int, temperature: float) -> Tensor:
    h, w, _ = target_hwD.shape
    result_Chw = reference.propagate_labels(
        target_hwD.flatten(0, 1),
        [features.flatten(0, 1).T for features in context],
        [soft.permute(2, 0, 1) for soft in labels],
        reference.reachable(h, w, radius) if radius else None,
        topk,
        temperature,
    )
    return result_Chw.permute(1, 2, 0)


def random_frames(seed: int, frames: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    features = F.normalize(torch.randn(frames + 1, h, w, 8), dim=-1)
    return features[0], features[1:], torch.rand(frames, h, w, 3).softmax(-1)


@pytest.mark.parametrize("mix", [affinity._mix_best, affinity._mix_all])  # the CPU's, a GPU's
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    frames=st.integers(1, 4),
    h=st.integers(1, 13),
    w=st.integers(1, 29),
    radius=st.integers(0, 6),
    topk=st.integers(1, 6),
)
def test_windows_give_what_the_dense_way_gives(
    mix: Mix, seed: int, frames: int, h: int, w: int, radius: int, topk: int
) -> None:
    topk = min(topk, frames * h * w)
    target, context, labels = random_frames(seed, frames, h, w)
    expected = reference_labels(target, context, labels, radius, topk, 0.1)
    with patch.object(affinity, "_mix_best", mix):
        found = affinity.propagate_labels(target, context, labels, radius, topk, 0.1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mix", [affinity._mix_best, affinity._mix_all])
def test_ties_at_the_last_place_all_count(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "_mix_best", mix)
    # A video that stands still: each source appears once per context frame, so the best one fills four places and the fifth is tied.
    target, context, _ = random_frames(0, 1, 6, 7)
    still, labels = context.repeat(4, 1, 1, 1), random_frames(1, 4, 6, 7)[2]
    found = affinity.propagate_labels(target, still, labels, 2, 5, 0.1)
    torch.testing.assert_close(found, reference_labels(target, still, labels, 2, 5, 0.1))
    eight = affinity.propagate_labels(target, still, labels, 2, 8, 0.1)
    torch.testing.assert_close(found, eight)


def test_sources_out_of_reach_do_not_vote() -> None:
    target, context, _ = random_frames(0, 1, 5, 9)
    context[0, :, 5:] = target[:, :1]
    labels = torch.zeros(1, 5, 9, 2)
    labels[0, :, :5, 0] = 1
    labels[0, :, 5:, 1] = 1
    assert affinity.propagate_labels(target, context, labels, 4, 1, 0.1)[:, 0, 1].max() == 0
    assert affinity.propagate_labels(target, context, labels, 5, 1, 0.1)[:, 0, 1].max() == 1


def test_the_tile_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target, context, labels = random_frames(3, 3, 12, 30)
    expected = affinity.propagate_labels(target, context, labels, 3, 5, 0.1)
    affinity.strips.cache_clear()
    monkeypatch.setattr(affinity, "TILE", (5, 4))
    torch.testing.assert_close(affinity.propagate_labels(target, context, labels, 3, 5, 0.1), expected)
    affinity.strips.cache_clear()
