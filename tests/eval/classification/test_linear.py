from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.classification.linear import LinearProbe, ProbeCheckpoint, ProbeSettings, train_probe

CPU = torch.device("cpu")
LABELS = torch.arange(60) % 3
FEATURES = F.one_hot(LABELS, 3).float() @ torch.randn(3, 10, generator=torch.Generator().manual_seed(0)) + torch.randn(
    60, 10, generator=torch.Generator().manual_seed(1)
)


def settings(*rates: float, epochs: int = 6) -> ProbeSettings:
    return ProbeSettings(learning_rates=rates, epochs=epochs, batch_size=16, seed=3)


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(epoch)).split(16)
    return [(FEATURES[batch], LABELS[batch]) for batch in order]


def in_order() -> list[tuple[Tensor, Tensor]]:
    return [(FEATURES, LABELS)]


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


def test_every_rate_of_a_sweep_is_trained_as_alone(tmp_path: Path) -> None:
    probe = LinearProbe(10, 3, settings(0.5, 5.0), CPU)
    outcome = train_probe(probe, batches, in_order, ProbeCheckpoint(path=tmp_path / "linear.pth", inputs="a"), writes=True)
    for layer, rate in zip(probe.layers, (0.5, 5.0), strict=True):
        torch.testing.assert_close(layer.weight.detach(), reference(rate, 6), rtol=1e-5, atol=1e-6)
    assert len(outcome.top1) == 6
    assert outcome.top1[-1] == [float((ranks == 0).double().mean()) for ranks in outcome.ranks]
    assert outcome.top1[-1][1] > 0.6
    assert not torch.equal(outcome.ranks[0], outcome.ranks[1])


def test_an_interrupted_probe_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    def interrupted(epoch: int) -> list[tuple[Tensor, Tensor]]:
        if epoch == 4:
            raise KeyboardInterrupt
        return batches(epoch)

    whole = LinearProbe(10, 3, settings(0.5), CPU)
    expected = train_probe(whole, batches, in_order, ProbeCheckpoint(path=tmp_path / "whole.pth", inputs="a"), writes=True)
    checkpoint = ProbeCheckpoint(path=tmp_path / "parts.pth", inputs="a")
    with pytest.raises(KeyboardInterrupt):
        train_probe(LinearProbe(10, 3, settings(0.5), CPU), interrupted, in_order, checkpoint, writes=True)
    again = LinearProbe(10, 3, settings(0.5), CPU)
    outcome = train_probe(again, batches, in_order, checkpoint, writes=True)
    assert torch.equal(again.layers[0].weight, whole.layers[0].weight)
    assert outcome.top1 == expected.top1
    # Finished: nothing is trained, the outcome is read.
    finished = train_probe(LinearProbe(10, 3, settings(0.5), CPU), interrupted, in_order, checkpoint, writes=True)
    assert torch.equal(finished.ranks[0], expected.ranks[0])
    with pytest.raises(ValueError, match="unfinished run with other inputs"):
        ProbeCheckpoint(path=tmp_path / "parts.pth", inputs="b").load(again)


def test_divergence_is_an_error(tmp_path: Path) -> None:
    def huge(epoch: int) -> list[tuple[Tensor, Tensor]]:
        return [(features * 1e4, labels) for features, labels in batches(epoch)]

    probe = LinearProbe(10, 3, settings(1e38), CPU)
    with pytest.raises(ValueError, match="smaller learning_rates"):
        train_probe(probe, huge, in_order, ProbeCheckpoint(path=tmp_path / "linear.pth", inputs="a"), writes=True)
