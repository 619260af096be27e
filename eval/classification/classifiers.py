"""The two classifiers of a run, on extracted features: each gives the right class's rank for every test image.

Shapes: T test images, N training images.
"""

import logging

import numpy as np
import torch
import torch.distributed as dist

from common.knn import classify
from common.neighbours import find_neighbours
from eval.classification.config import ClassificationConfig
from eval.classification.features import Features, all_rows
from eval.classification.feeding import AugmentedFeatures, StoredFeatures
from eval.classification.images import Splits
from eval.classification.linear import LinearProbe, ProbeCheckpoint, ProbeOutcome, ProbeSettings, train_probe
from eval.classification.representation import KNN, LINEAR, FeatureExtractor
from eval.classification.scores import Ranks
from eval.processes import Process

logger = logging.getLogger(__name__)

PROBE_FILE = "linear.pth"


def run_knn(
    config: ClassificationConfig, splits: Splits, features: Features, device: torch.device, process: Process
) -> dict[int, Ranks]:
    """Classify the test images by their neighbours, each process a share of them; number of neighbours -> ranks [T]."""
    own = np.array_split(np.arange(len(splits.test)), process.world_size)[process.rank]
    test_labels = torch.from_numpy(splits.test.labels)
    ranks = {k: torch.empty(0, dtype=torch.int64) for k in config.neighbours}
    if len(own):
        rows = all_rows(features.test[KNN])[own]
        neighbours = find_neighbours(rows, features.train[KNN], max(config.neighbours), device)
        train_labels, num_classes = torch.from_numpy(splits.train.labels), len(splits.train.classes)
        ranks = classify(neighbours, train_labels, test_labels[own], config.neighbours, config.temperature, num_classes)
    shares: list[dict[int, torch.Tensor] | None] = [None] * process.world_size
    if process.world_size == 1:
        shares = [ranks]
    else:
        dist.all_gather_object(shares, ranks)
    return {k: torch.cat([share[k] for share in shares if share is not None]).numpy() for k in config.neighbours}


def run_probe(
    config: ClassificationConfig, splits: Splits, features: Features, extractor: FeatureExtractor, process: Process, inputs: str
) -> ProbeOutcome:
    """Train and test the linear probe, continuing where an interrupted run stopped.

    Args:
        config: The options.
        splits: The images.
        features: Those of the test images, and of the training images where they are not augmented.
        extractor: For augmented images.
        process: This one, joined with the others.
        inputs: Digest of everything that determines the outcome.
    """
    device = extractor.device
    rates = tuple(config.learning_rates)
    settings = ProbeSettings(learning_rates=rates, epochs=config.epochs, batch_size=config.batch_size, seed=config.seed)
    width = features.test[LINEAR].width
    probe = LinearProbe(width, len(splits.train.classes), settings, device)
    order = {"batch_size": config.batch_size, "seed": config.seed}
    train: AugmentedFeatures | StoredFeatures
    if config.augment:
        if process.rank == 0:
            logger.info("linear probe: each of %d epochs runs the backbone on augmented images, as published", config.epochs)
        train = AugmentedFeatures(
            images=splits.train,
            extractor=extractor,
            width=width,
            crop=config.crop,
            workers=config.workers,
            process=process,
            **order,
        )
    else:
        train = StoredFeatures(store=features.train[LINEAR], images=splits.train, device=device, **order)
    test = StoredFeatures(store=features.test[LINEAR], images=splits.test, device=device, **order)
    checkpoint = ProbeCheckpoint(path=config.output / PROBE_FILE, inputs=inputs)
    return train_probe(probe, train, test.in_order, checkpoint, writes=process.rank == 0)
