"""The linear probe: one layer on frozen features, for several learning rates at once, and the batches that it is trained on.

Shapes: N training images, B images of a batch over all processes, L features, C classes, T test images.

Source: `eval_linear.py` of facebookresearch/dino 7c446df: SGD with momentum 0.9 and no weight decay, rate 0.001 x batch / 256 that
falls by a cosine from epoch to epoch, weights from a normal distribution of deviation 0.01, biases 0. DINO prints the best test
accuracy of all epochs as the outcome; here the last epoch's is the metric, and the best one's stands beside it.

The order of the images depends on seed and epoch only, so any number of processes sees the same batches: each makes the features of
its part, and all of them get the whole batch and take the same step.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from common.distributed import gather_objects, rank, world_size
from common.files import write_atomically
from common.knn import rank_of_truth
from eval.classification.config import ClassificationConfig
from eval.classification.data import LabelledImages
from eval.classification.features import LINEAR, FeatureExtractor, FeatureStore, load_batches, random_crop_and_flip

logger = logging.getLogger(__name__)

REFERENCE_BATCH = 256
"""Learning rates are stated for this batch size and scaled linearly."""

_MOMENTUM = 0.9
_INITIAL_DEVIATION = 0.01

Batches = Iterable[tuple[Tensor, Tensor]]
"""Features [B, L] and labels [B], on the probe's device; the same on every process."""


class ProbeOutcome(NamedTuple):
    """What the probe found on the test images.

    For each learning rate: how many classes come before the right one after the last epoch, [T]. By epoch and learning rate: the
    share of right answers.
    """

    ranks: list[Tensor]
    top1: list[list[float]]


def train_probe(
    config: ClassificationConfig,
    num_classes: int,
    train_batches: Callable[[int], Batches],
    test_batches: Callable[[], Batches],
    device: torch.device,
    checkpoint: Path,
    inputs: str,
) -> ProbeOutcome:
    """Train one layer per learning rate to the end, testing after every epoch; continue from the checkpoint.

    Args:
        config: Learning rates, epochs, batch size and seed.
        num_classes: C.
        train_batches: Training features of a 0-based epoch.
        test_batches: Test features.
        device: Where to train.
        checkpoint: The file of the progress, written by the first process after every epoch.
        inputs: Digest of everything that determines the outcome; a checkpoint of other inputs is refused.
    """
    width = next(iter(test_batches()))[0].shape[1]
    layers = _fresh_layers(config, width, num_classes).to(device)
    rates = [rate * config.batch_size / REFERENCE_BATCH for rate in config.learning_rates]
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=_MOMENTUM, weight_decay=0)
    first, outcome = 0, ProbeOutcome([], [])
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if state["inputs"] != inputs:
            raise ValueError(f"{checkpoint}: of an unfinished run with other inputs; choose another --output or remove it")
        layers.load_state_dict(state["probe"]["layers"])
        optimizer.load_state_dict(state["probe"]["optimizer"])
        first, outcome = state["epoch"], ProbeOutcome(state["ranks"], state["top1"])
        logger.info("linear probe: %d epochs were finished by an earlier run", first)
    for epoch in range(first, config.epochs):
        factor = (1 + math.cos(math.pi * epoch / config.epochs)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        loss = _train_epoch(layers, optimizer, train_batches(epoch))
        if not math.isfinite(loss):
            raise ValueError(f"the linear probe's loss is {loss} in epoch {epoch}; give smaller learning_rates")
        ranks = _ranks(layers, test_batches())
        top1 = [float((rank_T < 1).double().mean()) for rank_T in ranks]
        outcome = ProbeOutcome(ranks, [*outcome.top1, top1])
        if rank() == 0:
            probe = {"layers": layers.state_dict(), "optimizer": optimizer.state_dict()}
            state = {"inputs": inputs, "probe": probe, "epoch": epoch + 1, "ranks": outcome.ranks, "top1": outcome.top1}
            write_atomically(checkpoint, partial(torch.save, state))
            shares = zip(config.learning_rates, top1, strict=True)
            words = ", ".join(f"top-1 {100 * share:.2f} at rate {learning_rate:g}" for learning_rate, share in shares)
            logger.info("linear probe: epoch %d of %d, loss %.4f, %s", epoch + 1, config.epochs, loss, words)
    return outcome


def _fresh_layers(config: ClassificationConfig, width: int, num_classes: int) -> nn.ModuleList:
    layers = nn.ModuleList(nn.Linear(width, num_classes) for _ in config.learning_rates)
    for layer in layers:
        # The same for each: adding a rate to a sweep changes no other rate's outcome.
        generator = torch.Generator().manual_seed(config.seed)
        nn.init.normal_(layer.get_parameter("weight"), std=_INITIAL_DEVIATION, generator=generator)
        nn.init.zeros_(layer.get_parameter("bias"))
    return layers


def _train_epoch(layers: nn.ModuleList, optimizer: torch.optim.Optimizer, batches: Batches) -> float:
    """One pass over the training features; returns the mean loss of the first layer."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for features_BL, labels_B in batches:
        losses = [F.cross_entropy(layer(features_BL), labels_B) for layer in layers]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # the layers share nothing, so each gets its own loss's gradient
        optimizer.step()
        total += losses[0].detach().double().cpu() * len(labels_B)
        count += len(labels_B)
    return float(total / count)


@torch.inference_mode()
def _ranks(layers: nn.ModuleList, batches: Batches) -> list[Tensor]:
    """For each layer the right class's rank [T] for the test images, on the CPU."""
    parts: list[list[Tensor]] = [[] for _ in layers]
    for features_BL, labels_B in batches:
        for layer, found in zip(layers, parts, strict=True):
            found.append(rank_of_truth(layer(features_BL), labels_B).cpu())
    return [torch.cat(found) for found in parts]


def _epoch_batches(config: ClassificationConfig, num_images: int, epoch: int) -> Sequence[Tensor]:
    """Indices of the training images in the batches of an epoch."""
    generator = torch.Generator().manual_seed((config.seed << 20) + epoch)
    return torch.randperm(num_images, generator=generator).split(config.batch_size)


def augmented_batches(
    epoch: int, config: ClassificationConfig, images: LabelledImages, extractor: FeatureExtractor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw a random crop and flip of each image and send it through the backbone: the published protocol."""
    batches = _epoch_batches(config, len(images), epoch)
    own = [batch.tensor_split(world_size())[rank()] for batch in batches]
    transform = partial(random_crop_and_flip, crop=config.crop, seed=config.seed, epoch=epoch)
    loaded = load_batches(images, transform, [part.tolist() for part in own if len(part)], config.workers, extractor.device)
    labels_N = torch.from_numpy(images.labels)
    bar = tqdm(batches, unit="batch", desc=f"epoch {epoch + 1}", disable=None if rank() == 0 else True, leave=False)
    for batch, part in zip(bar, own, strict=True):
        features_bL = extractor(next(loaded))[LINEAR] if len(part) else None
        # Joined outside of inference mode, so that a layer's backward pass may keep the batch.
        features_BL = torch.cat([found for found in gather_objects(features_bL) if found is not None])
        yield features_BL.to(extractor.device), labels_N[batch].to(extractor.device)


def stored_batches(
    epoch: int, config: ClassificationConfig, images: LabelledImages, store: FeatureStore, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features that were extracted once, from the centre crops: a deviation, by far faster."""
    labels_N = torch.from_numpy(images.labels)
    for batch in _epoch_batches(config, len(images), epoch):
        yield store.rows(batch).to(device), labels_N[batch].to(device)


def batches_in_order(images: LabelledImages, store: FeatureStore, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """All features in the images' own order, for testing."""
    labels = torch.from_numpy(images.labels).split([len(span) for span in store.spans])
    for rows_BL, labels_B in zip(store.blocks(1), labels, strict=True):
        yield rows_BL.to(device), labels_B.to(device)
