"""Numbers that are not finite, wherever they are, and requests to stop."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pretrain.config import parse_run
from pretrain.networks import Networks, build_networks
from pretrain.sentinel import Sentinel, all_finite
from tests.pretrain.conftest import tiny_options

RECIPE = "sample_selfpatch"
CPU = torch.device("cpu")
GOOD = {"loss": torch.tensor(3.0)}


@pytest.fixture
def networks() -> Networks:
    return build_networks(parse_run([RECIPE, *tiny_options(Path("images"), Path("output"))]), CPU)


def first(tensors: object) -> Tensor:
    tensor = next(iter(tensors))  # type: ignore[call-overload]
    assert isinstance(tensor, Tensor)
    return tensor


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "where",
    [
        lambda networks: first(networks.student.parameters()),
        lambda networks: list(networks.student.parameters())[-1],
        lambda networks: first(buffer for buffer in networks.objective.buffers() if buffer.is_floating_point()),
    ],
)
def test_poison_is_found_anywhere(networks: Networks, where: Callable[[Networks], Tensor], value: float) -> None:
    assert all_finite(networks, GOOD)
    with torch.no_grad():
        where(networks).view(-1)[-1] = value
    assert not all_finite(networks, GOOD)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_is_enough(networks: Networks, value: float) -> None:
    verdict = Sentinel(CPU, lag=0).check(5, networks, {"loss": torch.tensor(value), "cls": torch.tensor(1.0)}, 0, settle=False)
    assert verdict.failed is not None
    assert verdict.failed.step == 5


def test_a_signal_stops_the_step_it_came_in(networks: Networks) -> None:
    sentinel = Sentinel(CPU, lag=0)
    assert sentinel.check(1, networks, GOOD, 0, settle=False).signum == 0
    verdict = sentinel.check(2, networks, GOOD, signal.SIGTERM, settle=False)
    assert (verdict.signum, verdict.failed) == (signal.SIGTERM, None)


def test_what_is_broken_is_not_saved_because_of_a_signal(networks: Networks) -> None:
    verdict = Sentinel(CPU, lag=0).check(1, networks, {"loss": torch.tensor(float("nan"))}, signal.SIGTERM, settle=True)
    assert verdict.failed is not None
    assert verdict.signum == 0


def bad() -> dict[str, Tensor]:
    return {"loss": torch.tensor(float("nan"))}


def test_a_late_verdict_names_its_own_step(networks: Networks) -> None:
    sentinel = Sentinel(CPU, lag=1)
    assert sentinel.check(1, networks, bad(), 0, settle=False).failed is None
    failed = sentinel.check(2, networks, GOOD, 0, settle=False).failed
    assert failed is not None
    assert failed.step == 1


def test_nothing_stays_open_before_a_checkpoint(networks: Networks) -> None:
    assert Sentinel(CPU, lag=1).check(1, networks, bad(), 0, settle=True).failed is not None


def test_nothing_stays_open_when_a_late_signal_makes_a_step_the_last(networks: Networks) -> None:
    sentinel = Sentinel(CPU, lag=1)
    assert sentinel.check(1, networks, GOOD, signal.SIGUSR1, settle=False).signum == 0
    verdict = sentinel.check(2, networks, bad(), 0, settle=False)
    assert verdict.failed is not None
    assert verdict.failed.step == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    networks = build_networks(parse_run([RECIPE, *tiny_options(Path("images"), Path("output"))]), device)
    sentinel = Sentinel(device, lag=1)
    assert sentinel.check(1, networks, {"loss": torch.tensor(float("nan"), device=device)}, 0, settle=False).failed is None
    failed = sentinel.check(2, networks, {"loss": torch.tensor(3.0, device=device)}, 0, settle=False).failed
    assert failed is not None
    assert failed.step == 1
