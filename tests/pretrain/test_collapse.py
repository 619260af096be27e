"""Networks that are made to collapse, seen through a training step of every method."""

import logging

import pytest
import torch

from pretrain.config import METHODS, PretrainConfig
from pretrain.data.views import CropBox, view_kinds
from pretrain.log import JUDGED_LINES, CollapseWarning, judge
from pretrain.networks import Networks, build_networks
from pretrain.schedules import step_settings
from pretrain.step import training_step
from tests.pretrain.conftest import stack_boxes, tiny_config

IMAGES = 8
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def parts_of(method: str) -> set[str]:
    return {"cls"} if method in ("dino", "moby") else {"cls", "patch"}


def diagnostics_of_a_step(config: PretrainConfig, networks: Networks) -> dict[str, float]:
    kinds = view_kinds(config.views)
    boxes = [stack_boxes([CropBox(0, 0, 50, 50, False)] * IMAGES) for _ in kinds]
    crops = [torch.rand(IMAGES, 3, kind.size, kind.size).sub(0.5).mul(4) for kind in kinds]
    losses = training_step(
        networks.student, networks.teacher, networks.objective, networks.optimizer, crops, step_settings(config, 1)(1),
        boxes=boxes, diagnose=True,
    )  # fmt: skip
    return {name: value.item() for name, value in losses.items()}


@torch.no_grad()
def blind(networks: Networks) -> None:
    """Every token becomes the same, whatever the image and wherever it is."""
    backbone = networks.teacher.get_submodule("backbone")
    backbone.get_submodule("patch_embed.proj").weight.zero_()
    backbone.pos_embed.zero_()


@torch.no_grad()
def prefer_one_prototype(networks: Networks) -> None:
    for name, buffer in networks.objective.named_buffers():
        if "centre" in name:
            buffer[..., 0] = -100


@torch.no_grad()
def prefer_none(networks: Networks) -> None:
    """Logits of zero."""
    for name, parameter in networks.teacher.named_parameters():
        if name.endswith("weight.original0"):
            parameter.zero_()


@EVERY_METHOD
def test_a_fresh_network_is_healthy(method: str) -> None:
    config = tiny_config(method)
    watch = CollapseWarning()
    networks = build_networks(config, torch.device("cpu"))
    for step in range(JUDGED_LINES):
        watch.update(step, diagnostics_of_a_step(config, networks))
    assert watch.states == dict.fromkeys(parts_of(method), "healthy")


@EVERY_METHOD
def test_one_constant_output(method: str, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(method)
    networks = build_networks(config, torch.device("cpu"))
    blind(networks)
    prefer_one_prototype(networks)
    found = diagnostics_of_a_step(config, networks)
    watch = CollapseWarning()
    with caplog.at_level(logging.WARNING):
        for step in range(2 * JUDGED_LINES):
            watch.update(step, found)
    assert watch.states == dict.fromkeys(parts_of(method), "constant")
    assert len(caplog.messages) == len(parts_of(method)), "once per part"
    assert all("collapsed: all outputs are alike, whatever the image" in message for message in caplog.messages)


@pytest.mark.parametrize("method", ["dino", "selfpatch", "patch_matching"])
def test_uniform_outputs(method: str, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(method)
    networks = build_networks(config, torch.device("cpu"))
    prefer_none(networks)
    found = diagnostics_of_a_step(config, networks)
    watch = CollapseWarning()
    with caplog.at_level(logging.WARNING):
        for step in range(JUDGED_LINES):
            watch.update(step, found)
    assert watch.states == dict.fromkeys(parts_of(method), "uniform")
    assert all("spread over all prototypes" in message for message in caplog.messages)


def test_every_change_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    healthy = {"loss": 1.0, "cls_entropy": 1.0, "cls_batch_entropy": 2.0, "cls_batch_entropy_part": 0.5}
    dead = {**healthy, "cls_batch_entropy": 1.0, "cls_batch_entropy_part": 0.1}
    watch = CollapseWarning()
    with caplog.at_level(logging.INFO):
        for step in range(60):
            watch.update(step, dead if 20 <= step < 40 else healthy)
    first, second = caplog.messages
    assert first.startswith(f"step {19 + JUDGED_LINES}: the teacher's cls outputs have collapsed")
    assert "cls_entropy 1," in first
    assert second.startswith("step 40: the cls outputs of the teacher are healthy again")


def test_one_odd_batch_is_no_collapse() -> None:
    watch = CollapseWarning()
    for step in range(30):
        watch.update(step, {"cls_deviation": 0.0 if step == 15 else 0.8})
        assert watch.states in ({}, {"cls": "healthy"})


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ({"entropy": 6.9, "batch_entropy": 6.92, "batch_entropy_part": 0.999}, "uniform"),
        ({"entropy": 0.01, "batch_entropy": 0.03, "batch_entropy_part": 0.01}, "constant"),
        # The published runs end with confident targets that differ between images.
        ({"entropy": 0.3, "batch_entropy": 5.0, "batch_entropy_part": 0.7}, "healthy"),
        ({"deviation": 0.05}, "constant"),
        ({"deviation": 0.7}, "healthy"),
    ],
)
def test_judgement(found: dict[str, float], state: str) -> None:
    assert judge(found) == state
