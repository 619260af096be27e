"""Whether a result holds everything that the tables print, of the kind that they expect.

`eval.result.read_result` sees to the fields' presence; a file edited or damaged since may still hold anything in them.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from eval.result import Result, ResultError
from tables.architecture import architecture_name
from tables.layout import BENCHMARKS, LAYOUTS, UNIT, benchmarks_of, classification_layout


def check_result(result: Result, path: Path) -> None:
    """Raise ResultError, with the path and every fault, unless the tables can print the result."""
    faults = list(_type_faults(result, Result, "")) or [
        *_metric_faults(result),
        *_dataset_faults(result),
        *_backbone_faults(result),
        *_deviation_faults(result),
    ]
    if faults:
        raise ResultError(f"{path}: incomplete or damaged result ({'; '.join(faults)}); run the task again")
    if not benchmarks_of(result):
        known = dict.fromkeys(f"{one.task} by {one.protocol}" for one in BENCHMARKS)
        raise ResultError(
            f"{path}: no table shows figures of the task {result.task!r} by the protocol {result.protocol.name!r} with these "
            f"metrics; known: {', '.join(known)}"
        )


def _type_faults(value: object, hint: Any, place: str) -> Iterator[str]:
    """Where a value departs from its annotation; knows the annotations that `eval.result` uses."""
    kind = get_origin(hint) or hint
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield from _type_faults(getattr(value, field.name), hints[field.name], f"{place}.{field.name}".strip("."))
    elif kind is Literal:
        if value not in get_args(hint):
            yield f"{place} is {value!r}, none of {', '.join(get_args(hint))}"
    elif kind is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _type_faults(item, get_args(hint)[1], f"{place}.{key}")
    elif kind is list and isinstance(value, list):
        for item in value:
            yield from _type_faults(item, get_args(hint)[0], place)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return
    elif kind is not Any and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        yield f"{place} is {value!r}, not of type {kind.__name__}"


def _metric_faults(result: Result) -> Iterable[str]:
    shown = benchmarks_of(result)
    columns = [column for layout in LAYOUTS for column in layout.columns if column.benchmark in shown]
    # Classification has no top-5 of five classes or fewer.
    columns += [column for column in classification_layout([result]).columns if column.metric in result.metrics]
    for name in dict.fromkeys(column.metric for column in columns):
        if name not in result.metrics:
            yield f"no metric {name}"
            continue
        metric = result.metrics[name]
        if not (math.isnan(metric.value) or 0 <= metric.value <= 100):
            yield f"metric {name} is {metric.value}, not within 0 to 100"
        if metric.unit != UNIT:
            yield f"metric {name} is in {metric.unit!r}, not in {UNIT}"
        if metric.interval_95 and not (len(metric.interval_95) == 2 and metric.interval_95[0] <= metric.interval_95[1]):
            yield f"metric {name} has the interval {metric.interval_95}, not [low, high]"


def _dataset_faults(result: Result) -> Iterable[str]:
    if "test" not in result.datasets:
        yield "no test dataset"


def _backbone_faults(result: Result) -> Iterable[str]:
    if not result.backbone.name:
        yield "the backbone has no name"
    try:
        architecture_name(result.backbone.spec)
    except (KeyError, ValueError, TypeError) as error:
        yield f"backbone.spec: {error}"
    for key, kind in {"format": str, "branch": str, "file_name": str, "epoch": int}.items():
        if key not in result.backbone.source:
            yield f"backbone.source states no {key}"
        else:
            yield from _type_faults(result.backbone.source[key], kind, f"backbone.source.{key}")
    # Files from before these were recorded have neither.
    for key, kind in {"recipe_sha256": str, "seed": int}.items():
        if key in result.backbone.source:
            yield from _type_faults(result.backbone.source[key], kind, f"backbone.source.{key}")


def _deviation_faults(result: Result) -> Iterable[str]:
    for name, values in result.protocol.deviations.items():
        if len(values) != 2:
            yield f"deviation {name} is not [published, used]"
