"""Whether two results may be compared, and whether they are seeds of one recipe.

Settings that are as published for each family of backbones count as equal between families: a ResNet and a ViT are each fine-tuned
as published for them, and the papers compare them so. What a protocol does not count as a deviation (such as the precision, which
depends on the device) does not count here either, except the attention heads, which the released COCO configuration changed by
mistake: networks with the heads of their pretraining, or with those of the configuration, both compete with published numbers, but no
difference is given between the one and the other.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from eval.result import Result
from eval.tasks import BENCHMARKS

HEADS = "heads"
FIELDS = (HEADS, "protocol", "dataset", "settings")  # The names of a difference's field, up to the first dot.


class Difference(NamedTuple):
    """A field in which two results differ, and its two values."""

    field: str
    """A name that `--allow` takes, such as `protocol.version`, `dataset.test.listing_sha256`, `heads` or `settings.taps`."""
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.field} ({self.first}, {self.second})"


def deviations_of(result: Result, benchmark: str) -> dict[str, list[Any]]:
    """The deviations from the published protocol that affect the metrics of a benchmark: a probe's epochs change no k-NN metric.

    Those that only ask for a footnote are left out.
    """
    excused = footnotes_of(result, benchmark)
    return {
        name: values
        for name, values in result.protocol.deviations.items()
        if _concerns(name, benchmark) and name not in excused
    }


def footnotes_of(result: Result, benchmark: str) -> dict[str, str]:
    """Deviations after which a benchmark number stays comparable, with their footnotes: settings that are as pretrained."""
    as_pretrained = {name for name, (_, used) in result.protocol.deviations.items() if used == result.backbone.spec.get(name)}
    return {name: text for name, text in BENCHMARKS[benchmark].footnotes.items() if name in as_pretrained}


def conditions_of(result: Result, benchmark: str) -> dict[str, str]:
    """What must be equal for metrics of a benchmark (its key) to be comparable. A setting that is absent is as published."""
    deviations = {f"settings.{name}": _text(used) for name, (_, used) in deviations_of(result, benchmark).items()}
    return {**_protocol_and_data(result), HEADS: heads_of(result), **deviations}


def heads_of(result: Result) -> str:
    """Whether the network was evaluated with the attention heads of its pretraining."""
    used, pretrained = result.protocol.settings.get("num_heads"), result.backbone.spec.get("num_heads")
    return "as pretrained" if used in (None, pretrained) else f"{used} instead of {pretrained}"


def benchmark_differences(first: Result, second: Result, benchmark: str, allowed: Collection[str] = ()) -> list[Difference]:
    """What makes two results of one benchmark (its key) incomparable; `allowed` is as `--allow` takes it."""
    return _compare(conditions_of(first, benchmark), conditions_of(second, benchmark), allowed)


def row_differences(first: Result, second: Result, allowed: Collection[str] = ()) -> list[Difference]:
    """The differences that are misleading between results of different benchmarks in one row of a table."""
    ours, theirs = (
        {HEADS: heads_of(result), "dataset.test.coverage": result.datasets["test"].coverage} for result in (first, second)
    )
    return _compare(ours, theirs, allowed)


def seed_differences(first: Result, second: Result, benchmark: str) -> list[str]:
    """Why two results of one benchmark are not seeds of one recipe: differences in settings or data, not in seed or machine."""

    def conditions(result: Result) -> dict[str, str]:
        settings = {name: value for name, value in result.protocol.settings.items() if _concerns(name, benchmark)}
        return {
            **_protocol_and_data(result),
            **{f"settings.{name}": _text(value) for name, value in settings.items()},
            **{f"backbone.{name}": _text(value) for name, value in result.backbone.spec.items()},
        }

    return [str(difference) for difference in _compare(conditions(first), conditions(second))]


def _concerns(setting: str, benchmark: str) -> bool:
    return not re.fullmatch(BENCHMARKS[benchmark].unrelated_settings, setting)


def _protocol_and_data(result: Result) -> dict[str, str]:
    found = {"protocol.name": result.protocol.name, "protocol.version": str(result.protocol.version)}
    for role, dataset in sorted(result.datasets.items()):
        found |= {f"dataset.{role}.{field}": str(value) for field, value in dataclasses.asdict(dataset).items()}
    return found


def _compare(first: Mapping[str, str], second: Mapping[str, str], allowed: Collection[str] = ()) -> list[Difference]:
    pairs = {name: (first.get(name, "as published"), second.get(name, "as published")) for name in (*first, *second)}
    accepted = tuple(f"{name}." for name in allowed)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return [Difference(name, *pair) for name, pair in differing.items() if not f"{name}.".startswith(accepted)]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
