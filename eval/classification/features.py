"""The extracted features of a run: which are needed, where they lie, and making those that are absent."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eval.classification.config import ClassificationConfig
from eval.classification.extraction import LoadingOptions, check_features, extract
from eval.classification.images import LabelledImages, Splits
from eval.classification.representation import KNN, LINEAR, FeatureExtractor
from eval.classification.store import FeatureStore
from eval.classification.transforms import CentreCrop
from eval.processes import Process


@dataclass(frozen=True, kw_only=True)
class Features:
    """Stores of both splits: name of the feature vector -> store."""

    train: dict[str, FeatureStore]
    """Of the training images; without `linear` where the probe augments them."""
    test: dict[str, FeatureStore]
    """Of the test images."""


def extract_features(
    config: ClassificationConfig, splits: Splits, backbone_sha256: str, extractor: FeatureExtractor, process: Process
) -> Features:
    """Make the features that the run's classifiers need, or find them in the cache.

    Raises:
        ValueError: If an image cannot be decoded, or a feature is not finite.
    """
    transform = CentreCrop(resize=config.resize, crop=config.crop)
    names: list[str] = [name for name in (KNN, LINEAR) if name in config.classifiers]
    train_names = [name for name in names if name == KNN or not config.augment]
    options = LoadingOptions(batch_size=config.extraction_batch_size, workers=config.workers)

    def stores(images: LabelledImages, wanted: list[str]) -> dict[str, FeatureStore]:
        result = {}
        for name in wanted:
            inputs: dict[str, Any] = {
                "backbone": backbone_sha256,
                "images": images.content_sha256,
                "transform": {"name": "centre crop", **dataclasses.asdict(transform)},
                "feature": name,
                "representation": extractor.representation.describe()[f"{name}_features"],
            }
            result[name] = FeatureStore(config.features_folder, inputs, len(images))
        return result

    features = Features(train=stores(splits.train, train_names), test=stores(splits.test, names))
    for images, found in ((splits.train, features.train), (splits.test, features.test)):
        extract(images, transform, extractor, found, process, options)
        check_features(found)
    return features


def all_rows(store: FeatureStore) -> Tensor:
    """Every row of a store that fits in memory."""
    return torch.cat([rows for _, rows in store.blocks(1)])
