"""One step: in parts as in one batch, compiled as not compiled, its draws, and what all processes must know after it."""

import signal
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.config import PretrainConfig
from pretrain.data.views import CropBox, view_kinds
from pretrain.networks import Networks, build_networks
from pretrain.schedules import step_settings
from pretrain.step import Sentinel, all_finite, seed_step, training_step
from tests.pretrain.conftest import stack_boxes, tiny_config

IMAGES = 4
CPU = torch.device("cpu")
GOOD, BAD = {"loss": torch.tensor(3.0)}, {"loss": torch.tensor(float("nan"))}


def batch(config: PretrainConfig) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    kinds = view_kinds(config.views)
    boxes = [
        stack_boxes([CropBox(8 * view, 16 * image, 100, 80 + 4 * image, bool(image % 2)) for image in range(IMAGES)])
        for view in range(len(kinds))
    ]
    return [torch.randn(IMAGES, 3, kind.size, kind.size) for kind in kinds], boxes


def after_a_step(method: str, accumulate: int = 1, compiled: bool = False) -> tuple[Networks, dict[str, Tensor]]:
    config = tiny_config(method, backbone__drop_path_rate=0.0)
    networks = build_networks(config, CPU)
    if compiled:
        networks.student.compile(dynamic=False)
        networks.teacher.compile(dynamic=False)
    crops, boxes = batch(config)
    settings = step_settings(config, steps_per_epoch=4)(6)
    losses = training_step(
        networks.student, networks.teacher, networks.objective, networks.optimizer, crops, settings, boxes=boxes,
        diagnose=True, accumulate=accumulate,
    )  # fmt: skip
    return networks, losses


def assert_same(found: Networks, expected: Networks) -> None:
    """By gradients: of those that are next to nothing AdamW makes steps of either direction."""
    gradients = {name: parameter.grad for name, parameter in expected.student.named_parameters()}
    assert sum(gradient is not None for gradient in gradients.values()) > 10
    for name, parameter in found.student.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)
    state = dict(expected.objective.named_buffers())
    for name, buffer in found.objective.named_buffers():
        torch.testing.assert_close(buffer, state[name], atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("method", ["dino", "selfpatch", "patch_matching"])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_is_the_same_step(method: str, accumulate: int) -> None:
    whole, losses = after_a_step(method)
    parts, share = after_a_step(method, accumulate)
    assert_same(parts, whole)
    assert share["loss"].item() == pytest.approx(losses["loss"].item(), abs=1e-5)
    assert share.keys() == losses.keys()


@pytest.mark.parametrize("method", ["moby", "moby_selfpatch"])
def test_in_parts_moby_queues_as_many(method: str) -> None:
    """Its batch normalisation makes the embeddings differ, but not their number and places."""
    whole, parts = (after_a_step(method, accumulate)[0].objective.state_dict() for accumulate in (1, 2))
    fresh = build_networks(tiny_config(method), CPU).objective.state_dict()
    counters = [name for name in whole if name.endswith(("oldest", "seen"))]
    queues = [name for name in whole if name.endswith("keys_QK")]
    assert counters
    assert queues
    for name in counters:
        assert torch.equal(parts[name], whole[name]), name
    for name in queues:
        assert torch.equal((whole[name] == fresh[name]).all(1), (parts[name] == fresh[name]).all(1)), name


@pytest.mark.long
@pytest.mark.parametrize("method", ["dino", "selfpatch", "patch_matching", "moby_selfpatch"])
def test_compiled_networks_take_the_same_step(method: str) -> None:
    plain, losses = after_a_step(method)
    compiled, same = after_a_step(method, compiled=True)
    assert_same(compiled, plain)
    assert same["loss"].item() == pytest.approx(losses["loss"].item(), abs=1e-5)


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


@pytest.fixture(scope="module")
def fresh() -> Networks:
    return build_networks(tiny_config("selfpatch"), CPU)


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
def test_a_number_that_is_not_finite_is_found_anywhere(where: Callable[[Networks], Tensor], value: float) -> None:
    networks = build_networks(tiny_config("selfpatch"), CPU)
    assert all_finite(networks, GOOD)
    with torch.no_grad():
        where(networks).view(-1)[-1] = value
    assert not all_finite(networks, GOOD)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_is_enough(fresh: Networks, value: float) -> None:
    losses = {"loss": torch.tensor(value), "cls": torch.tensor(1.0)}
    _, failed = Sentinel(CPU, lag=0).check(5, fresh, losses, 0, settle=False)
    assert failed is not None
    assert failed.step == 5


def test_a_signal_stops_the_step_it_came_in(fresh: Networks) -> None:
    sentinel = Sentinel(CPU, lag=0)
    assert sentinel.check(1, fresh, GOOD, 0, settle=False) == (0, None)
    assert sentinel.check(2, fresh, GOOD, signal.SIGTERM, settle=False) == (signal.SIGTERM, None)


def test_what_is_broken_is_not_saved_because_of_a_signal(fresh: Networks) -> None:
    signum, failed = Sentinel(CPU, lag=0).check(1, fresh, BAD, signal.SIGTERM, settle=True)
    assert signum == 0
    assert failed is not None


def test_a_late_answer_names_its_own_step(fresh: Networks) -> None:
    sentinel = Sentinel(CPU, lag=1)
    assert sentinel.check(1, fresh, BAD, 0, settle=False) == (0, None)
    _, failed = sentinel.check(2, fresh, GOOD, 0, settle=False)
    assert failed is not None
    assert failed.step == 1


def test_nothing_stays_open_before_a_checkpoint(fresh: Networks) -> None:
    assert Sentinel(CPU, lag=1).check(1, fresh, BAD, 0, settle=True)[1] is not None


def test_nothing_stays_open_when_a_late_signal_makes_a_step_the_last(fresh: Networks) -> None:
    sentinel = Sentinel(CPU, lag=1)
    assert sentinel.check(1, fresh, GOOD, signal.SIGUSR1, settle=False) == (0, None)
    _, failed = sentinel.check(2, fresh, BAD, 0, settle=False)
    assert failed is not None
    assert failed.step == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_sentinel_on_a_gpu() -> None:
    device = torch.device("cuda")
    networks = build_networks(tiny_config("selfpatch"), device)
    sentinel = Sentinel(device, lag=1)
    losses = {"loss": torch.tensor(float("nan"), device=device)}
    assert sentinel.check(1, networks, losses, 0, settle=False) == (0, None)
    _, failed = sentinel.check(2, networks, {"loss": torch.tensor(3.0, device=device)}, 0, settle=False)
    assert failed is not None
    assert failed.step == 1
