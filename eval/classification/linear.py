"""The linear probe: one layer on frozen features, for several learning rates at once, and the batches that it is trained on.

Shapes: N images, B images of a batch over all processes, L features, C classes, T test images.

Source: `eval_linear.py` of facebookresearch/dino 7c446df: SGD with momentum 0.9 and no weight decay, rate 0.001 x batch / 256 that
falls by a cosine from epoch to epoch, weights from a normal distribution of deviation 0.01, biases 0. DINO prints the best test
accuracy of all epochs as the outcome; here the last epoch's is the metric, and the best one's stands beside it.

The order of the images depends on seed and epoch only, so any number of processes sees the same batches: each makes the features of
its part, and all of them get the whole batch and take the same step.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from backbones.checkpoint import CheckpointError, load_checkpoint
from common.distributed import gather_objects, rank, world_size
from common.files import parse_json, write_atomically
from common.knn import rank_of_truth
from eval.classification.config import ClassificationConfig
from eval.classification.data import LabelledImages
from eval.classification.features import LINEAR, FeatureExtractor, load_batches, random_crop_and_flip
from eval.probes.cache import FeatureStore
from eval.progress import Progress
from eval.record import Inputs, differences, inputs_digest

logger = logging.getLogger(__name__)

_REFERENCE_BATCH = 256  # for which learning rates are stated; they are scaled linearly

Batches = Iterable[tuple[Tensor, Tensor]]
"""Features [B, L] and labels [B], on the probe's device; the same on every process."""


def train_probe(
    config: ClassificationConfig,
    num_classes: int,
    train_batches: Callable[[int], Batches],
    test_batches: Callable[[], Batches],
    checkpoint: Path,
    inputs: Inputs,
) -> tuple[list[Tensor], list[list[float]]]:
    """Train one layer per learning rate to the end, testing after every epoch; continue from the checkpoint.

    `train_batches` takes a 0-based epoch. `checkpoint` is the file of the progress, which the first process writes after every epoch;
    `inputs` is everything that determines the outcome, and a checkpoint of other inputs is refused.

    Returns by learning rate how many classes come before the right one after the last epoch, [T]; and by epoch and learning rate the
    share of right answers.
    """
    some_BL, _ = next(iter(test_batches()))
    layers = _fresh_layers(config, some_BL.shape[1], num_classes).to(some_BL.device)
    rates = [rate * config.batch_size / _REFERENCE_BATCH for rate in config.learning_rates]
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0)
    digest = inputs_digest(inputs)
    first = 0
    ranks: list[Tensor] = []
    top1: list[list[float]] = []
    if (state := _earlier_state(checkpoint)) is not None:
        if not isinstance(state, dict) or state.get("inputs") != digest:
            changed = _changes(state, inputs)
            raise ValueError(
                f"{checkpoint}: of an unfinished run with other inputs ({changed}); choose another --output or remove it"
            )
        try:
            layers.load_state_dict(state["probe"]["layers"])
            optimizer.load_state_dict(state["probe"]["optimizer"])
            first, ranks, top1 = state["epoch"], state["ranks"], state["top1"]
        except Exception as error:  # whatever torch raises for what does not fit
            raise ValueError(f"{checkpoint}: damaged ({error}); remove it to train the probe anew") from error
        logger.info("linear probe: %d epochs were finished by an earlier run", first)
    bar = Progress(total=config.epochs - first, unit="epoch", desc="linear probe", disable=True if rank() else None)
    for epoch in range(first, config.epochs):
        factor = (1 + math.cos(math.pi * epoch / config.epochs)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        loss = _train_epoch(layers, optimizer, train_batches(epoch))
        if not math.isfinite(loss):
            raise ValueError(f"the linear probe's loss is {loss} in epoch {epoch}; give smaller --learning-rates")
        ranks = _ranks(layers, test_batches())
        top1.append([float((rank_T < 1).double().mean()) for rank_T in ranks])
        if rank() == 0:
            probe = {"layers": layers.state_dict(), "optimizer": optimizer.state_dict()}
            progress = {"probe": probe, "epoch": epoch + 1, "ranks": ranks, "top1": top1}
            state = {"inputs": digest, "described": json.dumps(inputs), **progress}
            write_atomically(checkpoint, partial(torch.save, state))
            shares = zip(config.learning_rates, top1[-1], strict=True)
            words = ", ".join(f"top-1 {100 * share:.2f} at rate {learning_rate:g}" for learning_rate, share in shares)
            logger.info("linear probe: epoch %d of %d, loss %.4f, %s", epoch + 1, config.epochs, loss, words)
        bar.update()
    bar.close()
    return ranks, top1


def _earlier_state(checkpoint: Path) -> Any:
    """What an earlier run has left of its progress; None if there is nothing, or the machine crashed while it was written."""
    if not checkpoint.exists():
        return None
    try:
        return load_checkpoint(checkpoint)
    except CheckpointError as error:
        logger.warning("%s; the probe is trained anew", error)
        return None


def _changes(state: Any, inputs: Inputs) -> str:
    """What differs between the inputs of a checkpoint and these, as far as the checkpoint tells."""
    try:
        return differences(parse_json(state["described"]), inputs)
    except (AttributeError, LookupError, TypeError, ValueError):
        return "backbone, data or options"


def _fresh_layers(config: ClassificationConfig, width: int, num_classes: int) -> nn.ModuleList:
    layers = nn.ModuleList(nn.Linear(width, num_classes) for _ in config.learning_rates)
    for layer in layers:
        # The same for each: adding a rate to a sweep changes no other rate's outcome.
        generator = torch.Generator().manual_seed(config.seed)
        nn.init.normal_(layer.get_parameter("weight"), std=0.01, generator=generator)
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
    found = [[rank_of_truth(layer(features_BL), labels_B).cpu() for layer in layers] for features_BL, labels_B in batches]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def training_batches(
    epoch: int, config: ClassificationConfig, images: LabelledImages, store: FeatureStore | None, extractor: FeatureExtractor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch; for a random crop and flip of each image, the published protocol, unless there are stored features."""
    generator = torch.Generator().manual_seed((config.seed << 20) + epoch)
    batches = torch.randperm(len(images), generator=generator).split(config.batch_size)
    if store is not None:
        yield from stored_batches(batches, images, store, extractor.device)
        return
    own = [batch.tensor_split(world_size())[rank()] for batch in batches]
    transform = partial(random_crop_and_flip, crop=config.crop, seed=config.seed, epoch=epoch)
    loaded = load_batches(images, transform, [part.tolist() for part in own if len(part)], config.workers, extractor.device)
    labels_N = torch.from_numpy(images.labels)
    what = f"epoch {epoch + 1} of {config.epochs}"
    bar = tqdm(total=len(own), unit="batch", desc=what, disable=True if rank() else None, leave=False)
    for batch, part in zip(batches, own, strict=True):
        features_bL = extractor(next(loaded))[LINEAR] if len(part) else None
        # Joined outside of inference mode, so that a layer's backward pass may keep the batch.
        features_BL = torch.cat([found for found in gather_objects(features_bL) if found is not None])
        yield features_BL.to(extractor.device), labels_N[batch].to(extractor.device)
        bar.update()
    bar.close()


def stored_batches(
    batches: Iterable[Tensor], images: LabelledImages, store: FeatureStore, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features that were extracted once, from centre crops, for batches of indices [B]."""
    labels_N = torch.from_numpy(images.labels)
    for batch in batches:
        yield store.rows(batch).to(device), labels_N[batch].to(device)
