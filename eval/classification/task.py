"""Classification: features of frozen images, weighted k-NN and a linear probe.

Shapes: T test images, N training images, C classes.
"""

import time
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from backbones.base import check_size
from backbones.build import AnyBackbone
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec, ForeignSpec
from common.distributed import gather_objects, rank, world_size
from common.knn import classify, find_neighbours
from eval.classification.config import ClassificationConfig
from eval.classification.data import LabelledImages, Splits, read_splits
from eval.classification.features import KNN, LINEAR, FeatureExtractor, extract_features
from eval.classification.items import PERCENT, PREDICTIONS_FILE, TOPS, Ranks, counted, write_predictions
from eval.classification.linear import stored_batches, train_probe, training_batches
from eval.classification.protocol import choose_representation, protocol_of
from eval.course import Outcome, run_frozen
from eval.probes.cache import ROWS_PER_FILE, FeatureStore
from eval.record import Evaluation
from eval.result import Metric, Result

PROBE_FILE = "linear.pth"

_RESAMPLES = 10_000
_TAILS = (0.025, 0.975)
_ROWS_AT_ONCE = 4096  # of the bank


def check(config: ClassificationConfig, spec: BackboneSpec) -> None:
    """Find a user's mistakes before anything heavy starts."""
    prepare(config, spec).refuse_damage(config.data)


def prepare(config: ClassificationConfig, spec: BackboneSpec) -> Splits:
    """List the data, after checking that the options fit it and the backbone."""
    choose_representation(spec, config.linear_blocks, config.linear_mean_patch)
    stride = getattr(spec, "patch_size", 1)
    if config.crop % stride:
        raise ValueError(f"crop={config.crop} is not a multiple of the backbone's patch size {stride}")
    if isinstance(spec, ForeignSpec):
        try:
            check_size(spec, config.crop, config.crop)
        except ValueError as error:
            raise ValueError(f"crop={config.crop}: {error}; choose another with --crop") from error
    splits = read_splits(config.data, config.train_folder, config.test_folder, config.classes)
    if "knn" in config.classifiers and max(config.neighbours) > len(splits.train):
        found = f"{config.data} has {len(splits.train)} training images"
        raise ValueError(f"neighbours={config.neighbours}: {found}; leave the larger numbers out")
    if len(splits.train.classes) < 2:
        raise ValueError(f"{config.data}: one class only; there is nothing to classify")
    return splits


def evaluate(config: ClassificationConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun every process extracts a share of the features, finds a share of the neighbours and makes a part of every batch of
    the probe; the outcome does not depend on their number.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    splits = prepare(config, backbone.spec)
    datasets = {"train": splits.train.fingerprint, "test": splits.test.fingerprint}

    def work(evaluation: Evaluation, network: AnyBackbone, device: torch.device) -> partial[Outcome]:
        if rank() == 0:
            splits.refuse_damage(config.data)
        representation = choose_representation(backbone.spec, config.linear_blocks, config.linear_mean_patch)
        ranks, top1 = _classify(evaluation, splits, FeatureExtractor(network, representation, device))
        return partial(_conclude, config, splits.test, ranks, top1)

    return run_frozen("classification", config, backbone, protocol_of(config, backbone.spec), datasets, start, work)


def _classify(evaluation: Evaluation, splits: Splits, extractor: FeatureExtractor) -> tuple[Ranks, list[list[float]]]:
    """The ranks that every classifier gives, and the probe's share of right answers by epoch and learning rate."""
    config, backbone_sha256 = evaluation.options, evaluation.backbone.sha256
    stored = [name for name in config.classifiers if name == KNN or not config.augment]
    train = extract_features(config, splits.train, stored, backbone_sha256, extractor)
    test = extract_features(config, splits.test, config.classifiers, backbone_sha256, extractor)
    ranks = run_knn(config, splits, train[KNN], test[KNN], extractor.device) if KNN in test else {}
    if LINEAR not in test:
        return ranks, []
    train_batches = partial(training_batches, config=config, images=splits.train, store=train.get(LINEAR), extractor=extractor)
    in_order = torch.arange(len(splits.test)).split(ROWS_PER_FILE)
    test_batches = partial(stored_batches, in_order, splits.test, test[LINEAR], extractor.device)
    checkpoint = config.output / PROBE_FILE
    ranks_by_rate, top1 = train_probe(
        config, len(splits.train.classes), train_batches, test_batches, checkpoint, evaluation.inputs
    )
    names = ["linear", *(f"linear (rate {rate:g})" for rate in config.learning_rates[1:])]
    return ranks | {name: ranks_T.numpy() for name, ranks_T in zip(names, ranks_by_rate, strict=True)}, top1


def _conclude(config: ClassificationConfig, images: LabelledImages, ranks: Ranks, top1: list[list[float]]) -> Outcome:
    write_predictions(config.output, ranks, images)
    metrics = metrics_of(ranks, top1, len(images.classes), config.seed)
    artefacts = {"predictions": PREDICTIONS_FILE} | ({"probe": PROBE_FILE} if top1 else {})
    return Outcome(metrics, artefacts, breakdown_of(ranks, images))


def run_knn(
    config: ClassificationConfig, splits: Splits, train: FeatureStore, test: FeatureStore, device: torch.device
) -> dict[str, npt.NDArray[np.int64]]:
    """Classify the test images by their neighbours, each process a share of them; such as `20-NN` -> ranks [T]."""
    own = torch.arange(len(splits.test)).tensor_split(world_size())[rank()]
    bank = (train.rows(rows) for rows in torch.arange(len(splits.train)).split(_ROWS_AT_ONCE))
    neighbours = find_neighbours(test.rows(own), bank, max(config.neighbours), device)
    train_labels, test_labels = (torch.from_numpy(images.labels) for images in splits)
    num_classes = len(splits.train.classes)
    share = classify(neighbours, train_labels, test_labels[own], config.neighbours, config.temperature, num_classes)
    shares = gather_objects(share)
    return {f"{k}-NN": torch.cat([part[k] for part in shares]).numpy() for k in config.neighbours}


def metrics_of(ranks: Ranks, top1: list[list[float]], num_classes: int, seed: int) -> dict[str, Metric]:
    """Top-1 and top-5 of every classifier with 95 % intervals; no top-5 where every answer would be right.

    `linear top-1, best epoch` is what DINO's script prints: the highest test accuracy of all epochs, for the first learning rate.
    """
    tops = [top for top in TOPS if top < num_classes]
    metrics = {
        f"{name} top-{top}": accuracy(ranks_T, counted(name, top), seed) for name, ranks_T in ranks.items() for top in tops
    }
    if top1:
        metrics["linear top-1, best epoch"] = Metric(value=PERCENT * max(shares[0] for shares in top1))
    return metrics


def accuracy(ranks_T: npt.NDArray[np.int64], top: int, seed: int) -> Metric:
    """Top-n accuracy in percent and its percentile bootstrap interval.

    An image drawn with replacement from T is right with probability p, the accuracy, so the number of right ones in a resampled set
    is binomial (T, p): drawing that number is the bootstrap itself, without 10,000 sets of indices.
    """
    total = len(ranks_T)
    right = int((ranks_T < top).sum())
    resampled = np.random.default_rng(seed).binomial(total, right / total, size=_RESAMPLES) / total
    interval = [PERCENT * float(bound) for bound in np.quantile(resampled, _TAILS)]
    return Metric(value=PERCENT * right / total, interval_95=interval)


def breakdown_of(ranks: Ranks, images: LabelledImages) -> dict[str, dict[str, float]]:
    """Top-1 accuracy of every class in percent."""
    counts_C = np.bincount(images.labels, minlength=len(images.classes))
    right = {name: np.bincount(images.labels[ranks_T < 1], minlength=len(counts_C)) for name, ranks_T in ranks.items()}
    return {
        class_name: {f"{name} top-1": float(PERCENT * right_C[number] / counts_C[number]) for name, right_C in right.items()}
        for number, class_name in enumerate(images.classes)
    }
