"""The linear probe: one layer on frozen features, for several learning rates at once.

Shapes: B images of a batch (over all processes), L features, C classes, T test images.

Source: `eval_linear.py` of facebookresearch/dino 7c446df: SGD with momentum 0.9 and no weight decay, rate 0.001 x batch / 256 that
falls by a cosine from epoch to epoch, weights from a normal distribution of deviation 0.01, biases 0. DINO prints the best test
accuracy of all epochs as the outcome; here the last epoch's is the figure, and the best one's stands beside it.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.files import write_atomically
from common.knn import rank_of_truth

logger = logging.getLogger(__name__)

REFERENCE_BATCH = 256
"""Learning rates are stated for this batch size and scaled linearly."""

_MOMENTUM = 0.9
_INITIAL_DEVIATION = 0.01

FeatureBatches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""0-based epoch -> batches of features [B, L] and labels [B], on the probe's device; the same on every process."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How a probe is trained."""

    learning_rates: tuple[float, ...]
    """For a batch of 256; one layer for each."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """B."""
    seed: int
    """Of the initial weights, which all layers share."""


@dataclass
class ProbeOutcome:
    """What the probe found on the test images."""

    ranks: list[Tensor]
    """For each learning rate [T]: how many classes come before the right one, after the last epoch."""
    top1: list[list[float]] = field(default_factory=list)
    """Share of right answers by epoch and learning rate."""


class LinearProbe:
    """One linear layer per learning rate, all trained on the same batches."""

    def __init__(self, num_features: int, num_classes: int, settings: ProbeSettings, device: torch.device) -> None:
        """Make the layers.

        Args:
            num_features: L.
            num_classes: C.
            settings: How to train.
            device: Where.
        """
        self.settings = settings
        self.layers = nn.ModuleList(nn.Linear(num_features, num_classes) for _ in settings.learning_rates)
        for layer in self.layers:
            # The same for each: adding a rate to a sweep changes no other rate's outcome.
            generator = torch.Generator().manual_seed(settings.seed)
            nn.init.normal_(layer.get_parameter("weight"), std=_INITIAL_DEVIATION, generator=generator)
            nn.init.zeros_(layer.get_parameter("bias"))
        self.layers.to(device)
        scale = settings.batch_size / REFERENCE_BATCH
        self.optimizer = torch.optim.SGD(
            [
                {"params": layer.parameters(), "lr": rate * scale}
                for layer, rate in zip(self.layers, settings.learning_rates, strict=True)
            ],
            momentum=_MOMENTUM,
            weight_decay=0,
        )
        self.initial_rates = [rate * scale for rate in settings.learning_rates]

    def train_epoch(self, epoch: int, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """One pass over the training features.

        Args:
            epoch: 0-based.
            batches: Features [B, L] and labels [B].

        Returns:
            Mean loss of the first layer.
        """
        factor = (1 + math.cos(math.pi * epoch / self.settings.epochs)) / 2
        for group, rate in zip(self.optimizer.param_groups, self.initial_rates, strict=True):
            group["lr"] = rate * factor
        total, count = torch.zeros((), dtype=torch.float64), 0
        for features_BL, labels_B in batches:
            losses = [F.cross_entropy(layer(features_BL), labels_B) for layer in self.layers]
            self.optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()  # the layers share nothing, so each gets its own loss's gradient
            self.optimizer.step()
            total += losses[0].detach().double().cpu() * len(labels_B)
            count += len(labels_B)
        return float(total / count)

    @torch.inference_mode()
    def ranks(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """For each layer the right class's rank [T] for features [B, L] and labels [B] of the test images, on the CPU."""
        parts: list[list[Tensor]] = [[] for _ in self.layers]
        for features_BL, labels_B in batches:
            for layer, found in zip(self.layers, parts, strict=True):
                found.append(rank_of_truth(layer(features_BL), labels_B).cpu())
        return [torch.cat(found) for found in parts]

    def state(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {"layers": self.layers.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.layers.load_state_dict(state["layers"])
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True, kw_only=True)
class ProbeCheckpoint:
    """A probe's progress on disk, written after every epoch."""

    path: Path
    """The file."""
    inputs: str
    """Digest of everything that determines the outcome."""

    def load(self, probe: LinearProbe) -> tuple[int, ProbeOutcome]:
        """Finished epochs and the outcome so far; the probe is moved there.

        Raises:
            ValueError: If the file is of another run.
        """
        if not self.path.exists():
            return 0, ProbeOutcome(ranks=[])
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["inputs"] != self.inputs:
            raise ValueError(f"{self.path}: of an unfinished run with other inputs; choose another --output or remove it")
        probe.load_state(state["probe"])
        logger.info("linear probe: %d epochs were finished by an earlier run", state["epoch"])
        return state["epoch"], ProbeOutcome(ranks=state["ranks"], top1=state["top1"])

    def save(self, epoch: int, probe: LinearProbe, outcome: ProbeOutcome) -> None:
        """Write atomically.

        Args:
            epoch: Number of finished epochs.
            probe: As it is now.
            outcome: After that epoch.
        """
        progress = {"epoch": epoch, "ranks": outcome.ranks, "top1": outcome.top1}
        state = {"inputs": self.inputs, "probe": probe.state(), **progress}
        write_atomically(self.path, lambda temporary: torch.save(state, temporary))


def train_probe(
    probe: LinearProbe,
    train_batches: FeatureBatches,
    test_batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    checkpoint: ProbeCheckpoint,
    writes: bool,
) -> ProbeOutcome:
    """Train to the end, testing after every epoch; continues from the checkpoint.

    Args:
        probe: Fresh.
        train_batches: Training features of an epoch.
        test_batches: Test features.
        checkpoint: Where progress is kept.
        writes: Whether this process writes it, and says how far the training is.
    """
    first, outcome = checkpoint.load(probe)
    for epoch in range(first, probe.settings.epochs):
        loss = probe.train_epoch(epoch, train_batches(epoch))
        ranks = probe.ranks(test_batches())
        top1 = [float((rank_T < 1).double().mean()) for rank_T in ranks]
        outcome = ProbeOutcome(ranks=ranks, top1=[*outcome.top1, top1])
        if not math.isfinite(loss):
            raise ValueError(f"the linear probe's loss is {loss} in epoch {epoch}; give smaller learning_rates")
        if writes:
            checkpoint.save(epoch + 1, probe, outcome)
            words = _in_words(probe, top1)
            logger.info("linear probe: epoch %d of %d, loss %.4f, %s", epoch + 1, probe.settings.epochs, loss, words)
    return outcome


def _in_words(probe: LinearProbe, top1: Sequence[float]) -> str:
    shares = zip(probe.settings.learning_rates, top1, strict=True)
    return ", ".join(f"top-1 {100 * share:.2f} at rate {rate:g}" for rate, share in shares)
