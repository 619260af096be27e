"""The protocol of classification: its settings, and how a run departs from the published one."""

import dataclasses
from typing import Any

from backbones.spec import BackboneSpec
from eval.classification.config import ClassificationConfig
from eval.classification.representation import choose_representation, published_representation
from eval.result import Protocol

PROTOCOL_NAME = "dino-classification"
PROTOCOL_VERSION = 1
"""Grows whenever a change can change a figure."""

_AUGMENTED = "random resized crop and flip in every epoch"
_STORED = "features of centre crops, extracted once"

_COMMON = ("classifiers", "resize", "crop")
_OF_CLASSIFIER = {"knn": ("neighbours", "temperature"), "linear": ("learning_rates", "epochs", "batch_size")}


def protocol_of(config: ClassificationConfig, spec: BackboneSpec) -> Protocol:
    """Settings as used on a backbone, and deviations from DINO's evaluation.

    More classifiers, neighbours or learning rates than the published ones add figures and change none. A backbone without a CLS token
    is represented as DINO represents networks that have none, which the settings say.
    """
    chosen, published = (
        choose_representation(spec, config.linear_blocks, config.linear_mean_patch),
        published_representation(spec),
    )
    values = dataclasses.asdict(config)
    names = [*_COMMON, *(name for classifier in config.classifiers for name in _OF_CLASSIFIER[classifier])]
    settings: dict[str, Any] = {name: values[name] for name in names}
    defaults = {item.name: _default(item) for item in dataclasses.fields(ClassificationConfig)}
    compared = [name for name in names if name in ("resize", "crop", "temperature", "epochs", "batch_size")]
    deviations = {name: [defaults[name], values[name]] for name in compared if values[name] != defaults[name]}
    words = chosen.describe()
    if "knn" in config.classifiers:
        settings["knn_features"] = words["knn_features"]
    if "linear" in config.classifiers:
        settings |= {
            "linear_features": words["linear_features"],
            "linear_blocks": chosen.blocks,
            "linear_mean_patch": chosen.mean_patch,
            "training_images": _AUGMENTED if config.augment else _STORED,
        }
        for name in ("blocks", "mean_patch"):
            if getattr(chosen, name) != getattr(published, name):
                deviations[f"linear_{name}"] = [getattr(published, name), getattr(chosen, name)]
        if config.learning_rates[0] != defaults["learning_rates"][0]:
            deviations["learning_rate"] = [defaults["learning_rates"][0], config.learning_rates[0]]
        if not config.augment:
            deviations["training_images"] = [_AUGMENTED, _STORED]
    return Protocol(name=PROTOCOL_NAME, version=PROTOCOL_VERSION, settings=settings, deviations=deviations)


def _default(item: "dataclasses.Field[Any]") -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
