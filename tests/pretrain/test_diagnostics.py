"""Diagnostics of collapse, on teachers that are made healthy or collapsed, for every method."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pretrain.config import METHODS
from pretrain.heads import Projections
from pretrain.networks import build_networks
from pretrain.objectives.base import Objective, Outputs, distribution_diagnostics, embedding_diagnostics
from tests.pretrain.conftest import tiny_config

VIEWS, IMAGES, PATCHES, WIDTH = 2, 16, 16, 32
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
TEMPERATURE = 0.04


def objective_of(method: str) -> Objective:
    return build_networks(tiny_config(method), torch.device("cpu")).objective


def outputs(objective: Objective, rows: Tensor) -> Outputs:
    """Views whose patches are like their image's CLS token; rows [IMAGES, K] of the widest head."""
    patch_centre = dict(objective.named_buffers()).get("patch_loss.centre.mean_K")
    narrow = rows if patch_centre is None else rows[:, : len(patch_centre)]
    patches = Projections([narrow[:, None].expand(-1, PATCHES, -1)] * VIEWS)
    return Outputs(Projections([rows] * VIEWS), patches, [(4, 4)] * VIEWS)


def width_of(objective: Objective) -> int:
    """K of the CLS head."""
    return next(buffer.shape[-1] for name, buffer in objective.named_buffers() if "centre" in name or "keys" in name)


@EVERY_METHOD
def test_a_healthy_teacher(method: str) -> None:
    """Every image has a direction or prototype of its own."""
    objective = objective_of(method)
    width = width_of(objective)
    found = objective.diagnostics(outputs(objective, torch.eye(width)[:IMAGES]), TEMPERATURE)
    if "moby" in method:
        assert found["cls_similarity"] == pytest.approx(0, abs=1e-6)
        assert found["cls_deviation"] == pytest.approx(math.sqrt(IMAGES - 1) / math.sqrt(width), rel=1e-5)
        return
    assert found["cls_entropy"] < 0.01
    # All images are equally likely, so the prototypes that they take are.
    assert found["cls_batch_entropy"] == pytest.approx(math.log(IMAGES), abs=0.01)
    assert found["cls_batch_entropy_part"] == pytest.approx(math.log(IMAGES) / math.log(width), abs=0.01)
    if method != "dino":
        assert found["patch_batch_entropy"] - found["patch_entropy"] > 2


@EVERY_METHOD
def test_a_teacher_with_one_answer(method: str) -> None:
    objective = objective_of(method)
    constant = torch.eye(width_of(objective))[:1].expand(IMAGES, -1)
    found = objective.diagnostics(outputs(objective, constant), TEMPERATURE)
    for part in {name.split("_")[0] for name in found}:
        if "moby" in method:
            assert found[f"{part}_similarity"] == pytest.approx(1, abs=1e-5)
            assert found[f"{part}_deviation"] < 1e-3
        else:
            assert found[f"{part}_batch_entropy"] < 0.01
            assert found[f"{part}_entropy"] < 0.01


@pytest.mark.parametrize("method", ["dino", "selfpatch", "patch_matching"])
def test_a_teacher_with_uniform_answers(method: str) -> None:
    objective = objective_of(method)
    found = objective.diagnostics(outputs(objective, torch.zeros(IMAGES, width_of(objective))), TEMPERATURE)
    for part in {name.split("_")[0] for name in found}:
        assert found[f"{part}_entropy_part"] == pytest.approx(1)
        assert found[f"{part}_batch_entropy_part"] == pytest.approx(1)


@EVERY_METHOD
def test_looking_changes_nothing(method: str) -> None:
    objective = objective_of(method)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.diagnostics(outputs(objective, torch.randn(IMAGES, width_of(objective))), TEMPERATURE)
    assert before.keys() == objective.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_entropies_by_hand() -> None:
    """Two images, two prototypes: probabilities (0.9, 0.1) and (0.5, 0.5)."""
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log() * 0.5 + torch.tensor([3.0, -4.0])
    found = distribution_diagnostics(Projections([logits]), torch.tensor([3.0, -4.0]), temperature=0.5)
    first = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert found["entropy"] == pytest.approx((first + math.log(2)) / 2, abs=1e-6)
    assert found["batch_entropy"] == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.3), abs=1e-6)
    assert found["entropy_part"] == pytest.approx((first / math.log(2) + 1) / 2, abs=1e-6)
    assert found["centre_norm"] == pytest.approx(5)


def test_each_position_has_its_own_centre() -> None:
    centre = torch.randn(6, 8)
    logits = centre.expand(3, 6, 8)
    assert distribution_diagnostics(Projections([logits]), centre, 0.1)["entropy_part"] == pytest.approx(1)
    assert distribution_diagnostics(Projections([logits]), centre.flip(0), 0.1)["entropy_part"] < 0.9


def test_a_sample_of_many_rows_speaks_for_all() -> None:
    """Positions of every residue are met, with the centres that belong to them."""
    centre = torch.randn(14, 16)
    logits = Projections([centre + torch.randn(40, 14, 16) * 0.3 for _ in range(10)])
    exact = distribution_diagnostics(logits, centre, 0.1)
    sampled = distribution_diagnostics(logits, centre, 0.1, most_values=2 * 16 * 500)
    assert sampled["entropy"] == pytest.approx(float(exact["entropy"]), rel=0.05)
    assert sampled["batch_entropy"] == pytest.approx(float(exact["batch_entropy"]), rel=0.02)


@settings(max_examples=25, deadline=None)
@given(images=st.integers(2, 5), views=st.integers(1, 3), patches=st.integers(1, 4), seed=st.integers(0, 1000))
def test_similarity_is_the_mean_over_pairs_of_different_images(images: int, views: int, patches: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(views, images, patches, 6, generator=generator)
    units = torch.nn.functional.normalize(embeddings, dim=-1)
    cosines = torch.einsum("vbnk,wcmk->bcvnwm", units, units)
    pairs = [cosines[first, second].mean() for first in range(images) for second in range(images) if first != second]
    found = embedding_diagnostics(list(embeddings), units.flatten(0, 2))
    assert found["similarity"] == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-5)
    assert found["queue_similarity"] == pytest.approx(float(cosines.mean()), abs=1e-5)
    deviation = units.flatten(0, 2).std(0, correction=0).mean() * 6**0.5
    assert found["deviation"] == pytest.approx(float(deviation), abs=1e-4)


def test_one_image_has_no_similarity_to_others() -> None:
    """It was NaN, which stopped the run with the advice to lower the learning rate."""
    found = embedding_diagnostics([torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))], None)
    assert found["similarity"] == 0
    assert torch.isfinite(torch.stack(list(found.values()))).all()
