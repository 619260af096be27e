"""Decay groups, per-tensor clipping, the moving average, and schedules at their ends."""

import pytest
import torch
from torch import nn

from pretrain.config import parse_run
from pretrain.networks import build_networks, build_optimizer
from pretrain.schedules import step_settings
from tests.pretrain.test_recipes import toy


def test_biases_and_vectors_do_not_decay() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    network.register_parameter("pos_embed", nn.Parameter(torch.zeros(1, 4, 3)))
    optimizer = build_optimizer(network)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert [tuple(parameter.shape) for parameter in groups["decay"]["params"]] == [(1, 4, 3), (3, 2)]
    assert groups["no_decay"]["weight_decay"] == 0
    assert len(groups["no_decay"]["params"]) == 3
    decayed, _ = build_optimizer(network, decay_positions=False).param_groups
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(3, 2)]


def test_moby_decays_positions_cls_tokens_and_bias_tables() -> None:
    """The authors' optimiser asks the wrapper for exceptions, which has none; the encoder's own are never read."""
    for recipe, names in (
        ("coco_moby_vit_tiny", ("pos_embed", "cls_token")),
        ("coco_moby_swin_tiny", ("relative_position_bias_table",)),
    ):
        networks = build_networks(toy(recipe), torch.device("cpu"))
        decayed = {id(value) for value in networks.optimizer.param_groups[0]["params"]}
        found = [id(value) in decayed for name, value in networks.student.named_parameters() if name.endswith(names)]
        assert len(found) >= len(names)
        assert all(found)


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
