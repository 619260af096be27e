"""Whether two results may be compared, and whether they are seeds of one recipe.

A setting that equals the published one for a backbone's family is taken as equal between families: a ResNet and a ViT are each
fine-tuned as published for them, and the papers compare them so. What a protocol does not count as a deviation (precision by device,
say) does not count here either, except the attention heads, which published runs have changed by mistake.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from eval.result import Result
from tables.layout import KNN, LINEAR

AS_PUBLISHED = "as published"
AS_PRETRAINED = "as pretrained"

HEADS = "heads"
COVERAGE = "dataset.test.coverage"
FIELDS = (HEADS, "protocol", "dataset", "settings")
"""Of differences, or what they begin with before a dot."""

# The settings of a classification result that are one classifier's alone.
_OF_KNN = frozenset({"temperature", "neighbours", "knn_features"})
_OF_LINEAR = frozenset({"epochs", "batch_size", "learning_rate", "learning_rates", "training_images"})


class Difference(NamedTuple):
    """Something in which two results differ."""

    field: str
    """Such as `protocol.version`, `dataset.test.listing_sha256`, `heads` or `settings.taps`; what `--allow` takes."""
    first: str
    """The value in the first result."""
    second: str
    """The value in the second one."""

    def __str__(self) -> str:
        """`heads (as pretrained, 8 instead of 6)`."""
        return f"{self.field} ({self.first}, {self.second})"


def deviations_of(result: Result, benchmark: str) -> dict[str, list[Any]]:
    """The deviations from the published protocol that touch the figures of a benchmark: a probe's epochs change no k-NN figure."""
    return {name: values for name, values in result.protocol.deviations.items() if _concerns(name, benchmark)}


def differences(first: Result, second: Result, benchmark: str, allowed: Collection[str] = ()) -> list[Difference]:
    """What makes the figures of two results incomparable.

    Args:
        first: A result.
        second: Another one of the same benchmark.
        benchmark: Key of the benchmark.
        allowed: Fields that may differ; `dataset.test` stands for all of `dataset.test.*`.
    """
    return [one for one in _different(facts(first, benchmark), facts(second, benchmark)) if not _is_allowed(one, allowed)]


def row_differences(first: Result, second: Result, allowed: Collection[str] = ()) -> list[Difference]:
    """What makes the figures of two results of different benchmarks odd beside each other in one row of a table."""
    of_row = [{HEADS: _heads(result), COVERAGE: result.datasets["test"].coverage} for result in (first, second)]
    return [one for one in _different(*of_row) if not _is_allowed(one, allowed)]


def replicate_differences(first: Result, second: Result, benchmark: str) -> list[str]:
    """In what two results differ that could be seeds of one recipe: every setting and all data, but neither seed nor machine.

    Args:
        first: A result.
        second: Another one of the same benchmark.
        benchmark: Key of the benchmark.
    """
    return [str(one) for one in _different(_conditions(first, benchmark), _conditions(second, benchmark))]


def facts(result: Result, benchmark: str) -> dict[str, str]:
    """What must be equal for figures of a benchmark (its key) to be comparable; a deviation that is absent is as published."""
    deviations = {f"settings.{name}": _text(used) for name, (_, used) in deviations_of(result, benchmark).items()}
    return {**_protocol(result), **_datasets(result), HEADS: _heads(result), **deviations}


def _conditions(result: Result, benchmark: str) -> dict[str, str]:
    settings = {
        f"settings.{name}": _text(value) for name, value in result.protocol.settings.items() if _concerns(name, benchmark)
    }
    spec = {f"backbone.{name}": _text(value) for name, value in result.backbone.spec.items()}
    return {**_protocol(result), **_datasets(result), **settings, **spec}


def _is_allowed(difference: Difference, allowed: Collection[str]) -> bool:
    return any(difference.field == name or difference.field.startswith(f"{name}.") for name in allowed)


def _protocol(result: Result) -> dict[str, str]:
    return {"protocol.name": result.protocol.name, "protocol.version": str(result.protocol.version)}


def _datasets(result: Result) -> dict[str, str]:
    return {
        f"dataset.{role}.{field}": str(value)
        for role, dataset in sorted(result.datasets.items())
        for field, value in dataclasses.asdict(dataset).items()
    }


def _heads(result: Result) -> str:
    used, pretrained = result.protocol.settings.get("num_heads"), result.backbone.spec.get("num_heads")
    return AS_PRETRAINED if used in (None, pretrained) else f"{used} instead of {pretrained}"


def _concerns(setting: str, benchmark: str) -> bool:
    """Whether a setting or deviation can change the figures of a benchmark."""
    if setting == "classifiers":
        return False
    match benchmark:
        case KNN.key:
            return setting not in _OF_LINEAR and not setting.startswith("linear_")
        case LINEAR.key:
            return setting not in _OF_KNN
        case _:
            return True


def _different(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    pairs = {name: (first.get(name, AS_PUBLISHED), second.get(name, AS_PUBLISHED)) for name in (*first, *second)}
    return [Difference(name, *values) for name, values in pairs.items() if values[0] != values[1]]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
