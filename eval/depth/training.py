"""The head's training on random crops, whose features are computed batch by batch.

Shapes: B images of a batch, D channels, h x w patches, H x W pixels.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from common.distributed import full_float32, rank
from common.files import write_atomically
from eval.depth.config import DepthConfig
from eval.depth.data import Pair
from eval.depth.head import batch_loss
from eval.depth.protocol import Rules, beta1, learning_rate
from eval.depth.transforms import draw_changes, read_tensors, training_pair
from eval.probes.heads import LinearHead
from eval.probes.training import Draw, Maps, resume, seed_of
from eval.progress import Progress

logger = logging.getLogger(__name__)


def make_optimizer(head: LinearHead, rules: Rules) -> AdamW:
    """Its rate and beta1 are set before every update."""
    return AdamW(head.parameters(), lr=0.0, betas=(0.0, rules.beta2), weight_decay=rules.weight_decay)


def train_step(
    head: LinearHead, optimizer: AdamW, features_BDhw: Tensor, truth_B1HW: Tensor, step: int, rules: Rules
) -> tuple[Tensor, Tensor]:
    """The 0-based update of this number; returns the loss before it, and the gradient's norm before it is clipped."""
    for group in optimizer.param_groups:
        group.update(lr=learning_rate(rules, step), betas=(beta1(rules, step), rules.beta2))
    with_variance = step >= rules.loss_warmup_iterations
    loss = batch_loss(head([features_BDhw]), truth_B1HW, with_variance, rules)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = clip_grad_norm_(head.parameters(), rules.gradient_clip)
    optimizer.step()
    return loss.detach(), norm


@full_float32()
def train_head(
    head: LinearHead,
    batches: Callable[[int], Iterator[tuple[Maps, Tensor]]],
    config: DepthConfig,
    rules: Rules,
    checkpoint: Path,
    digest: str,
) -> None:
    """Train to the end, from the checkpoint on if there is one; `batches` start at an update, `digest` is of the run's inputs."""
    optimizer = make_optimizer(head, rules)
    first = resume(checkpoint, digest, {"head": head, "optimizer": optimizer})["updates"]
    head.train()
    quiet = True if rank() else None  # None: quiet where no terminal is
    bar = Progress(desc="depth head", initial=first, total=rules.iterations, unit="update", disable=quiet, leave=False)
    for step, (maps, truth_B1HW) in enumerate(batches(first), first):
        loss, norm = train_step(head, optimizer, maps["last"][0], truth_B1HW, step, rules)
        bar.update()
        done = step + 1
        # The loss also has none where two crops have no measured pixel, which then add nothing to the gradient.
        if not math.isfinite(float(norm)):
            reasons = "two crops with a single measured pixel, or a learning_rate that is too large"
            raise ValueError(f"the gradient's norm is {float(norm)} in update {done}; reasons may be {reasons}")
        if done % config.checkpoint_interval == 0 or done == rules.iterations:
            logger.info("update %d of %d: loss %.4f", done, rules.iterations, float(loss))
            if rank() == 0:
                parts = {"head": head.state_dict(), "optimizer": optimizer.state_dict()}
                write_atomically(checkpoint, partial(torch.save, {"inputs": digest, "updates": done, **parts}))
    bar.close()


def read_batch(pairs: Sequence[Pair], rules: Rules, seed: int, batch: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] and depths [B, 1, H, W] of a part of a batch."""
    found = []
    for passed, index in batch:
        image_3HW, depth_1HW = read_tensors(pairs[index])
        height, width = image_3HW.shape[1:]
        changes = draw_changes(rules, height, width, np.random.default_rng(seed_of(seed, passed, index)))
        found.append(training_pair(image_3HW, depth_1HW, changes, rules))
    images, depths = zip(*found, strict=True)
    return torch.stack(images), torch.stack(depths)
