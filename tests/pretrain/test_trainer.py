"""One step: in parts as in one batch, compiled as not compiled."""

import pytest
import torch
from torch import Tensor

from pretrain.config import PretrainConfig
from pretrain.data.views import CropBox, stack_boxes, view_kinds
from pretrain.networks import Networks, build_networks
from pretrain.run_schedules import step_settings
from pretrain.trainer import training_step
from tests.pretrain.conftest import tiny_config

IMAGES = 4


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
    networks = build_networks(config, torch.device("cpu"))
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
    for name, value in whole.items():
        if name.endswith(("oldest", "seen")):
            assert torch.equal(parts[name], value), name
        elif name.endswith("keys_QK"):
            fresh = build_networks(tiny_config(method), torch.device("cpu")).objective.state_dict()[name]
            assert torch.equal((value == fresh).all(1), (parts[name] == fresh).all(1)), name


@pytest.mark.long
@pytest.mark.parametrize("method", ["dino", "selfpatch", "patch_matching", "moby_selfpatch"])
def test_compiled_networks_take_the_same_step(method: str) -> None:
    plain, losses = after_a_step(method)
    compiled, same = after_a_step(method, compiled=True)
    assert_same(compiled, plain)
    assert same["loss"].item() == pytest.approx(losses["loss"].item(), abs=1e-5)
