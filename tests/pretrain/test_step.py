"""One step: in parts as in one batch, compiled as not compiled, its draws, and what all processes must know after it."""

from signal import SIGTERM

import pytest
import torch
from torch import Tensor

from pretrain.data.views import view_kinds
from pretrain.networks import Networks, build_networks
from pretrain.step import agree, all_finite, seed_step, wrap_student
from tests.pretrain.conftest import take_step, tiny_config

IMAGES = 4
CPU = torch.device("cpu")
GOOD, BAD = {"loss": torch.tensor(3.0)}, {"loss": torch.tensor(float("nan"))}


def after_a_step(method: str, accumulate: int = 1, compiled: bool = False) -> tuple[Networks, dict[str, Tensor]]:
    config = tiny_config(method, backbone__drop_path_rate=0.0)
    networks = build_networks(config, CPU)
    wrap_student(networks, CPU, compiled)
    torch.manual_seed(0)
    return networks, take_step(config, networks, IMAGES, diagnose=True, accumulate=accumulate)


@pytest.mark.parametrize("method", ["dino", "selfpatch", "patch_matching"])
@pytest.mark.parametrize(("accumulate", "compiled"), [(2, False), (4, False), pytest.param(1, True, marks=pytest.mark.long)])
def test_a_batch_in_parts_or_compiled_is_the_same_step(method: str, accumulate: int, compiled: bool) -> None:
    """By gradients: of those that are next to nothing AdamW makes steps of either direction."""
    (expected, losses), (found, same) = after_a_step(method), after_a_step(method, accumulate, compiled)
    assert same.keys() == losses.keys()
    assert same["loss"].item() == pytest.approx(losses["loss"].item(), abs=1e-5)
    gradients = {name: parameter.grad for name, parameter in expected.student.named_parameters()}
    assert sum(gradient is not None for gradient in gradients.values()) > 10
    for name, parameter in found.student.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(
        dict(found.objective.named_buffers()), dict(expected.objective.named_buffers()), atol=1e-6, rtol=1e-5
    )


def test_the_teacher_compiles_as_a_whole() -> None:
    """The table of candidates, made anew for each size of views, split SelfPatch's into 13 graphs; now it is a constant."""
    config = tiny_config("selfpatch")
    teacher = build_networks(config, CPU).teacher
    crops = [torch.randn(2, 3, kind.size, kind.size) for kind in view_kinds(config.views)]
    with torch.no_grad():
        found, expected = torch.compile(teacher, fullgraph=True, backend="eager")(crops), teacher(crops)
    for of_compiled, of_plain in zip(found.patches.views, expected.patches.views, strict=True):
        assert torch.equal(of_compiled, of_plain)


@pytest.mark.parametrize("method", ["moby", "moby_selfpatch"])
def test_in_parts_moby_queues_as_many(method: str) -> None:
    """Its batch normalisation makes the embeddings differ, but not their number and places."""
    whole, parts = (after_a_step(method, accumulate)[0].objective.state_dict() for accumulate in (1, 2))
    fresh = build_networks(tiny_config(method), CPU).objective.state_dict()
    assert any(name.endswith("oldest") for name in whole)
    for name in whole:
        if name.endswith("keys_QK"):
            assert torch.equal((whole[name] == fresh[name]).all(1), (parts[name] == fresh[name]).all(1)), name
        else:
            assert torch.equal(parts[name], whole[name]), name


def test_every_run_step_and_process_draws_its_own_stochastic_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that drew alike would drop the same blocks for all of their shares of a batch."""
    draws: dict[tuple[int, int, int], tuple[float, ...]] = {}
    for place in [(seed, step, process) for seed in (0, 1) for step in (0, 1, 2) for process in (0, 1, 2)]:
        monkeypatch.setenv("RANK", str(place[2]))
        for _ in range(2):
            seed_step(*place[:2])
            drawn = tuple(torch.rand(4).tolist())
            assert draws.setdefault(place, drawn) == drawn, "a continued run repeats them"
    assert len(set(draws.values())) == len(draws)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["first weight", "last weight", "centre"])
def test_a_number_that_is_not_finite_is_found_anywhere(where: str, value: float) -> None:
    networks = build_networks(tiny_config("selfpatch"), CPU)
    assert all_finite(networks, GOOD)
    weights, centres = list(networks.student.parameters()), list(networks.objective.buffers())
    with torch.no_grad():
        {"first weight": weights[0], "last weight": weights[-1], "centre": centres[0]}[where].view(-1)[-1] = value
    assert not all_finite(networks, GOOD)
    assert not all_finite(networks, {"loss": torch.tensor(value)})


@pytest.mark.parametrize(("losses", "signum", "broken"), [(GOOD, 0, False), (GOOD, SIGTERM, False), (BAD, SIGTERM, True)])
def test_processes_learn_of_failures_and_signals(losses: dict[str, Tensor], signum: int, broken: bool) -> None:
    assert agree(build_networks(tiny_config("selfpatch"), CPU), losses, signum) == (signum, broken)
