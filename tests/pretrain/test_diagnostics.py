"""Diagnostics of the targets by hand, and networks that are made to collapse, seen through a step of every method."""

import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.heads import Projections
from pretrain.log import JUDGED_LINES, CollapseWarning
from pretrain.methods import METHODS, MethodName
from pretrain.networks import Networks, build_networks
from pretrain.objectives.base import distribution_diagnostics, embedding_diagnostics
from tests.pretrain.conftest import assert_equal, take_step, tiny_config

IMAGES = 8
HEALTHY = {"loss": 1.0, "cls_entropy": 1.0, "cls_batch_entropy": 2.0, "cls_batch_entropy_part": 0.5}


@torch.no_grad()
def spoil(networks: Networks, state: str) -> None:
    """Make all tokens the same and prefer one prototype, or make all logits zero."""
    if state == "constant":
        for name in ("backbone.patch_embed.proj.weight", "backbone.pos_embed"):
            networks.teacher.get_parameter(name).zero_()
        for name, buffer in networks.objective.named_buffers():
            if "centre" in name:
                buffer[..., 0] = -100
    elif state == "uniform":
        for name, parameter in networks.teacher.named_parameters():
            if name.endswith("weight.original0"):
                parameter.zero_()


@pytest.mark.parametrize("method", METHODS)
def test_looking_changes_nothing(method: str) -> None:
    config = tiny_config(method)
    states = []
    for diagnose in (True, False):
        networks = build_networks(config, torch.device("cpu"))
        torch.manual_seed(0)
        take_step(config, networks, IMAGES, diagnose=diagnose)
        states.append(networks.objective.state_dict())
    assert_equal(*states)


STATES = {"healthy": "", "constant": "all outputs are alike, whatever the image", "uniform": "spread over all prototypes"}


@pytest.mark.parametrize(
    ("method", "state"),
    [(method, state) for method in METHODS for state in STATES if state != "uniform" or METHODS[method].prototypes],
)
def test_the_state_of_a_network(method: MethodName, state: str, caplog: pytest.LogCaptureFixture) -> None:
    message = STATES[state]
    config = tiny_config(method)
    networks = build_networks(config, torch.device("cpu"))
    spoil(networks, state)
    found = {name: value.item() for name, value in take_step(config, networks, IMAGES, diagnose=True).items()}
    watch = CollapseWarning()
    for number in range(2 * JUDGED_LINES):
        watch.update(number, found)
    parts = {"cls"} if method in ("dino", "moby") else {"cls", "patch"}
    assert watch.states == dict.fromkeys(parts, state)
    assert len(caplog.messages) == (len(parts) if message else 0), "once per part"
    assert all(message in shown for shown in caplog.messages)


def test_every_change_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One odd batch is none."""
    dead = {**HEALTHY, "cls_batch_entropy": 1.0, "cls_batch_entropy_part": 0.1}
    watch = CollapseWarning()
    with caplog.at_level(logging.INFO):
        for step in range(60):
            watch.update(step, dead if step == 10 or 20 <= step < 40 else HEALTHY)
    first, second = caplog.messages
    assert first.startswith(f"step {19 + JUDGED_LINES}: the teacher's cls outputs have collapsed")
    assert "cls_entropy 1," in first
    assert second.startswith("step 40: the cls outputs of the teacher are healthy again")


def test_entropies_by_hand() -> None:
    """Two images, two prototypes: probabilities (0.9, 0.1) and (0.5, 0.5)."""
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log() * 0.5 + torch.tensor([3.0, -4.0])
    found = distribution_diagnostics(Projections([logits]), torch.tensor([3.0, -4.0]), temperature=0.5)
    first = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert found["entropy"] == pytest.approx((first + math.log(2)) / 2, abs=1e-6)
    assert found["batch_entropy"] == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.3), abs=1e-6)
    assert found["entropy_part"] == pytest.approx((first / math.log(2) + 1) / 2, abs=1e-6)
    assert found["centre_norm"] == pytest.approx(5)


def test_a_sample_of_many_rows_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of every residue are met, with the centres that belong to them."""
    centre = torch.randn(14, 16)
    logits = Projections([centre + torch.randn(40, 14, 16) * 0.3 for _ in range(10)])
    exact = distribution_diagnostics(logits, centre, 0.1)
    assert distribution_diagnostics(Projections([centre[None]]), centre, 0.1)["entropy_part"] == pytest.approx(1)
    monkeypatch.setattr("pretrain.objectives.base.MOST_VALUES", 2 * 16 * 500)
    sampled = distribution_diagnostics(logits, centre, 0.1)
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
