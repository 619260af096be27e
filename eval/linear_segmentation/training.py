"""Several heads, of every rate and layer, trained beside each other on the same features, and tested on the way.

Shapes: B images of a batch, N test images, K classes. The 3 of a count tensor: intersection, predicted, labelled pixels.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.distributed import rank
from common.files import write_atomically
from eval.linear_segmentation.protocol import Rules, learning_rate, updates
from eval.probes.dense import cross_entropy
from eval.probes.heads import LinearHead, kept_channels
from eval.probes.pixels import compute_metrics
from eval.probes.training import Maps, resume, seed_of
from eval.progress import Progress
from eval.record import Evaluation

logger = logging.getLogger(__name__)

HEADS_FILE = "linear.pth"


class Trial(NamedTuple):
    """A head of a sweep."""

    rate: float
    layer: str

    def __str__(self) -> str:
        return f"rate {self.rate:g}" if self.layer == "last" else f"rate {self.rate:g}, layer {self.layer}"


def trials_of(rules: Rules) -> list[Trial]:
    """Every rate with every layer; the first is the one that gives the metrics."""
    return [Trial(rate, layer) for layer in rules.layers for rate in rules.learning_rates]


def make_optimizer(heads: Sequence[nn.Module], rules: Rules) -> torch.optim.Optimizer:
    """One group of weights for each head, whose rate `train_heads` sets before every update."""
    groups = [{"params": list(head.parameters()), "lr": 0.0} for head in heads]
    if rules.optimiser == "SGD":
        return torch.optim.SGD(groups, momentum=rules.momentum or 0.0, weight_decay=rules.weight_decay)
    assert rules.betas is not None
    return torch.optim.AdamW(groups, betas=rules.betas, weight_decay=rules.weight_decay)


def train_step(
    heads: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    inputs: Sequence[list[Tensor]],
    labels_BHW: Tensor,
    rates: Sequence[float],
    kept: Sequence[Tensor | None],
    rules: Rules,
) -> Tensor:
    """One update of every head on its own maps; returns the losses before it."""
    side = rules.scored_side
    if side is not None:
        labels_BHW = torch.nn.functional.interpolate(labels_BHW[:, None].float(), (side, side), mode="nearest")[:, 0]
    losses = [
        cross_entropy(head(maps, kept_BD), labels_BHW, rules.loss_per == "labelled pixel")
        for head, maps, kept_BD in zip(heads, inputs, kept, strict=True)
    ]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    torch.stack(losses).sum().backward()  # the heads share nothing, so each gets its own loss's gradient
    optimizer.step()
    return torch.stack(losses).detach()


def train_heads(
    evaluation: Evaluation,
    rules: Rules,
    batches: Callable[[int], Iterator[tuple[Maps, Tensor]]],
    widths: dict[str, int],
    num_classes: int,
    num_images: int,
    evaluate: Callable[[Sequence[nn.Module]], list[Tensor]],
    device: torch.device,
) -> list[dict[str, Any]]:
    """Train to the end, from the checkpoint on if there is one; `batches` start at an update.

    `evaluate` gives the counts [N, 3, K] of the heads. Returns for every trial `history` [(updates, mIoU)], and `counts`, `weights`
    of the evaluation that the protocol selects.
    """
    config, digest, trials = evaluation.options, evaluation.inputs_sha256, trials_of(rules)
    checkpoint = config.output / HEADS_FILE
    heads = nn.ModuleList(
        LinearHead(widths[trial.layer], num_classes, rules.batch_norm, rules.weight_deviation, config.seed) for trial in trials
    ).to(device)
    optimizer = make_optimizer(list(heads), rules)
    state = resume(checkpoint, digest, {"heads": heads, "optimizer": optimizer})
    first, outcomes = state["updates"], state.get("outcomes") or [{"history": []} for _ in trials]
    total, per_pass = updates(rules, num_images)
    every = rules.evaluate_every or per_pass
    bar = Progress(
        desc="linear heads", initial=first, total=total, unit="update", disable=True if rank() else None, leave=False
    )
    for step, (maps, labels_BHW) in enumerate(batches(first), first):
        seed = seed_of(config.seed, step)
        kept = [kept_channels(len(labels_BHW), widths[trial.layer], rules.dropout, seed) for trial in trials]
        losses = train_step(
            list(heads.train()),
            optimizer,
            [maps[trial.layer] for trial in trials],
            labels_BHW,
            [learning_rate(rules, trial.rate, step, total, per_pass) for trial in trials],
            [None if kept_BD is None else kept_BD.to(device) for kept_BD in kept],
            rules,
        )
        bar.update()
        done = step + 1
        tested = done % every == 0 or done == total
        if not tested and done % config.checkpoint_interval:
            continue
        for loss, trial in zip(losses.tolist(), trials, strict=True):
            if not math.isfinite(loss):
                raise ValueError(f"the loss of {trial} is {loss} after {done} updates; give smaller learning_rates")
        if tested:
            _select(outcomes, evaluate(list(heads.eval())), heads, rules, done)
        if rank() == 0:
            parts = {"heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
            state = {"inputs": digest, "updates": done, "outcomes": outcomes, **parts}
            write_atomically(checkpoint, partial(torch.save, state))
    bar.close()
    return outcomes


def _select(outcomes: list[dict[str, Any]], counts: list[Tensor], heads: nn.ModuleList, rules: Rules, done: int) -> None:
    """Note the mIoU of every head, and keep counts and weights of the evaluation that the protocol reports so far."""
    for trial, outcome, counts_N3K, head in zip(trials_of(rules), outcomes, counts, heads, strict=True):
        miou = compute_metrics(counts_N3K.sum(dim=0, dtype=torch.int64), rules.absent_classes == "zero")[0]["mIoU"]
        earlier = [value for _, value in outcome["history"]]
        outcome["history"].append((done, miou))
        logger.info("update %d: mIoU %.2f (%s)", done, miou, trial)
        if rules.selection == "last" or not earlier or miou > max(earlier):
            weights = {name: value.detach().cpu().clone() for name, value in head.state_dict().items()}
            outcome.update(counts=counts_N3K, weights=weights)
