import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eval import progress
from eval.classification.config import ClassificationConfig
from eval.classification.linear import Batches, train_probe

LABELS = torch.arange(60) % 3
CENTRES, NOISE = (torch.randn(rows, 10, generator=torch.Generator().manual_seed(rows)) for rows in (3, 60))
FEATURES = CENTRES[LABELS] + NOISE


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(epoch)).split(16)
    return [(FEATURES[batch], LABELS[batch]) for batch in order]


def reference(rate: float, epochs: int) -> Tensor:
    """The weights by torch's own layer, optimiser and schedule."""
    layer = torch.nn.Linear(10, 3)
    torch.nn.init.normal_(layer.weight, std=0.01, generator=torch.Generator().manual_seed(3))
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), rate * 16 / 256, momentum=0.9, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=0)
    for epoch in range(epochs):
        for features, labels in batches(epoch):
            optimizer.zero_grad()
            torch.nn.CrossEntropyLoss()(layer(features), labels).backward()
            optimizer.step()
        schedule.step()
    return layer.weight.detach()


def train(
    checkpoint: Path, *rates: float, train_batches: Callable[[int], Batches] = batches, seed: int = 0
) -> tuple[list[Tensor], list[list[float]]]:
    config = ClassificationConfig(
        **{"backbone": Path("b"), "data": Path("d"), "output": checkpoint.parent},
        **{"learning_rates": list(rates), "epochs": 6, "batch_size": 16, "seed": 3},
    )
    return train_probe(config, 3, train_batches, lambda: [(FEATURES, LABELS)], checkpoint, {"seed": seed})


def weights(checkpoint: Path) -> list[Tensor]:
    layers = torch.load(checkpoint, weights_only=True)["probe"]["layers"]
    return [layers[name] for name in sorted(layers) if name.endswith("weight")]


def interrupted(epoch: int) -> Batches:
    if epoch == 4:
        raise KeyboardInterrupt
    return batches(epoch)


def test_every_rate_of_a_sweep_is_trained_as_alone(tmp_path: Path) -> None:
    ranks, top1 = train(tmp_path / "linear.pth", 0.5, 5.0)
    for found, rate in zip(weights(tmp_path / "linear.pth"), (0.5, 5.0), strict=True):
        torch.testing.assert_close(found, reference(rate, 6), rtol=1e-5, atol=1e-6)
    assert len(top1) == 6
    assert top1[-1] == [float((ranks_T == 0).double().mean()) for ranks_T in ranks]
    assert top1[-1][1] > 0.6
    assert not torch.equal(ranks[0], ranks[1])


def test_an_interrupted_probe_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    ranks, top1 = train(tmp_path / "whole.pth", 0.5)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts.pth", 0.5, train_batches=interrupted)
    _, top1_of_parts = train(tmp_path / "parts.pth", 0.5)
    assert torch.equal(weights(tmp_path / "parts.pth")[0], weights(tmp_path / "whole.pth")[0])
    assert top1_of_parts == top1
    # Finished: nothing is trained, the outcome is read.
    ranks_as_read, _ = train(tmp_path / "parts.pth", 0.5, train_batches=interrupted)
    assert torch.equal(ranks_as_read[0], ranks[0])
    with pytest.raises(ValueError, match=r"unfinished run with other inputs \(seed 0 -> 1\)"):
        train(tmp_path / "parts.pth", 0.5, seed=1)


def test_divergence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="smaller --learning-rates"):
        train(tmp_path / "linear.pth", 1e38, train_batches=lambda _: [(FEATURES * 1e4, LABELS)])


def test_the_time_of_all_epochs_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "ESTIMATE_AFTER_S", 0)
    caplog.set_level(logging.INFO)
    train(tmp_path / "linear.pth", 0.5)
    told = [message for message in caplog.messages if "take about" in message]
    assert len(told) == 1
    assert re.match(r"linear probe: \d+ epochs take about .+ on this machine \(1 took", told[0])
