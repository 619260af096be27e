"""Decay groups, per-tensor clipping, the moving average, and schedules at their ends."""

import pytest
import torch
from torch import nn

from pretrain.config import parse_run
from pretrain.networks import build_networks, build_optimizer, clip_each_gradient, update_teacher
from pretrain.schedules import cosine, linear, step_settings
from tests.pretrain.test_recipes import toy


def test_biases_and_vectors_do_not_decay() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    network.register_parameter("positions", nn.Parameter(torch.zeros(1, 4, 3)))
    optimizer = build_optimizer(network)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert [tuple(parameter.shape) for parameter in groups["decay"]["params"]] == [(1, 4, 3), (3, 2)]
    assert groups["no_decay"]["weight_decay"] == 0
    assert len(groups["no_decay"]["params"]) == 3


def test_moby_decays_positions_cls_tokens_and_bias_tables() -> None:
    """The authors' optimiser asks the wrapper for exceptions, which has none; the encoder's own are never read."""
    for recipe, names in (
        ("coco_moby_vit_tiny", ("pos_embed", "cls_token")),
        ("coco_moby_swin_tiny", ("relative_position_bias_table",)),
    ):
        networks = build_networks(toy(recipe), torch.device("cpu"))
        (decayed,) = (
            {id(value) for value in group["params"]} for group in networks.optimizer.param_groups if group["name"] == "decay"
        )
        found = {name: id(value) in decayed for name, value in networks.student.named_parameters() if name.endswith(names)}
        assert len(found) >= len(names)
        assert all(found.values())


@pytest.mark.parametrize(
    ("recipe", "epochs", "lr", "weight_decay"),
    [
        # Transformer-SSL 4510de1, config.py:97-98, for batch 512; the COCO recipes halve the batch.
        ("imagenet_moby_vit_small", (0, 5, 299.99), (5e-7, 1e-3, 5e-6), (0.05, 0.05, 0.05)),
        ("coco_moby_vit_tiny", (0, 5, 199.99), (2.5e-7, 5e-4, 2.5e-6), (0.05, 0.05, 0.05)),
        # vissl 09270ed2, dino_16gpus_deits16.yaml: by the epoch.
        (
            "imagenet_dino_vit_small",
            (0, 0.99, 10, 10.99, 299.99),
            (1e-5, 1e-5, 2e-3, 2e-3, 1e-5),
            (0.04, 0.04, None, None, 0.4),
        ),
        ("imagenet_dino_vit_small_boost", (0, 10, 299.99), (0, 2e-3, 1e-6), (0.04, None, 0.4)),
        ("imagenet_selfpatch_vit_small", (0, 10, 199.99), (0, 2e-3, 1e-6), (0.04, None, 0.4)),
    ],
)
def test_recipes_have_their_authors_schedules(
    recipe: str, epochs: tuple[float, ...], lr: tuple[float, ...], weight_decay: tuple[float | None, ...]
) -> None:
    config = parse_run([recipe])
    for epoch, rate, decay in zip(epochs, lr, weight_decay, strict=True):
        found = step_settings(config, 100, round(100 * epoch))
        assert found.lr == pytest.approx(rate, rel=1e-3, abs=1e-7)
        assert decay is None or found.weight_decay == pytest.approx(decay, rel=1e-3)


def test_schedule_ends() -> None:
    lr = [cosine(step, 1.0, 0.0, 10, warmup_steps=4) for step in range(10)]
    assert lr[:5] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert 0 < lr[9] < lr[8]
    assert [linear(epoch, 0.04, 0.07, 4) for epoch in range(5)] == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_a_step_is_that_of_plain_loops() -> None:
    """AdamW (decoupled decay, both moments corrected), clipping and the moving average, one parameter after another."""
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    optimizer = build_optimizer(student)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
        group["weight_decay"] = 0.3 if group["name"] == "decay" else 0.0
    weights = {name: value.detach().clone() for name, value in student.named_parameters()}
    averages = {name: value.detach().clone() for name, value in teacher.named_parameters()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in weights.items()}
    for step in range(1, 4):
        gradients = {name: 5 * torch.randn_like(value) for name, value in weights.items()}
        for name, parameter in student.named_parameters():
            parameter.grad = gradients[name].clone()
        clip_each_gradient(student.parameters(), 3.0)
        optimizer.step()
        update_teacher(teacher, student, 0.9)
        for name, weight in weights.items():
            gradient = gradients[name] * min(1.0, 3.0 / (gradients[name].norm().item() + 1e-6))
            first, second = moments[name]
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            moments[name] = first, second
            if name == "weight":
                weight.mul_(1 - 0.01 * 0.3)
            weight.sub_(0.01 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
            averages[name] = 0.9 * averages[name] + 0.1 * weight
    assert dict(student.named_parameters()).keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(student.get_parameter(name).detach(), weight)
        torch.testing.assert_close(teacher.get_parameter(name).detach(), averages[name])
