"""Whether a result holds everything that the tables print, of the kind that they expect.

`eval.result.read_result` sees to the fields' presence; a file edited or damaged since may still hold anything in them.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from backbones.spec import architecture_name
from eval.result import Result, ResultError
from eval.tasks import BENCHMARKS
from tables.layout import benchmarks_of, metrics_of

UNIT = "percent"

_SOURCE_KINDS = {"format": str, "branch": str, "file_name": str, "epoch": int}
_LATER_SOURCE_KINDS = {"recipe_sha256": str, "seed": int}
"""Backbone files from before these were recorded have neither."""


def check_result(result: Result, path: Path) -> None:
    """Raise ResultError, with the path and every fault, unless the tables can print the result."""
    if faults := list(_type_faults(result, Result, "")) or list(_content_faults(result)):
        raise ResultError(f"{path}: incomplete or damaged result ({'; '.join(faults)}); run the task again")
    if not benchmarks_of(result):
        known = dict.fromkeys(f"{one.task} by {one.protocol}" for one in BENCHMARKS.values())
        raise ResultError(
            f"{path}: no table shows metrics of the task {result.task!r} by the protocol {result.protocol.name!r} with these "
            f"names; known: {', '.join(known)}"
        )


def _type_faults(value: object, hint: Any, place: str) -> Iterator[str]:
    """Where a value departs from its annotation, for the annotations that `eval.result` uses."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    children: list[tuple[object, Any, str]] = []
    if kind is Any or (kind is float and type(value) is int):
        return
    if dataclasses.is_dataclass(kind):
        children = [(getattr(value, name), child, f"{place}.{name}".strip(".")) for name, child in get_type_hints(kind).items()]
    elif kind is Literal:
        if value not in arguments:
            yield f"{place} is {value!r}, none of {', '.join(arguments)}"
    elif not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        yield f"{place} is {value!r}, not of type {kind.__name__}"
    elif isinstance(value, dict):
        children = [(item, arguments[1], f"{place}.{key}") for key, item in value.items()]
    elif isinstance(value, list):
        children = [(item, arguments[0], place) for item in value]
    for child in children:
        yield from _type_faults(*child)


def _content_faults(result: Result) -> Iterator[str]:
    for name in dict.fromkeys(name for benchmark in benchmarks_of(result) for name in metrics_of(result, benchmark)):
        yield from _metric_faults(result, name)
    if "test" not in result.datasets:
        yield "no test dataset"
    if not result.backbone.name:
        yield "the backbone has no name"
    try:
        architecture_name(result.backbone.spec)
    except (KeyError, ValueError, TypeError) as error:
        yield f"backbone.spec: {error}"
    source = result.backbone.source
    yield from (f"backbone.source states no {key}" for key in _SOURCE_KINDS if key not in source)
    for key, kind in (_SOURCE_KINDS | _LATER_SOURCE_KINDS).items():
        if key in source:
            yield from _type_faults(source[key], kind, f"backbone.source.{key}")
    for name, values in result.protocol.deviations.items():
        if len(values) != 2:
            yield f"deviation {name} is not [published, used]"


def _metric_faults(result: Result, name: str) -> Iterator[str]:
    metric = result.metrics.get(name)
    if metric is None:
        yield f"no metric {name}"
        return
    if not (math.isnan(metric.value) or 0 <= metric.value <= 100):
        yield f"metric {name} is {metric.value}, not within 0 to 100"
    if metric.unit != UNIT:
        yield f"metric {name} is in {metric.unit!r}, not in {UNIT}"
    if metric.interval_95 and not (len(metric.interval_95) == 2 and metric.interval_95[0] <= metric.interval_95[1]):
        yield f"metric {name} has the interval {metric.interval_95}, not [low, high]"
