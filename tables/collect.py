"""Reads every result under a folder, checks what the tables rely on, and gathers the results of each row."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from backbones.spec import architecture_name, spec_from_dict
from common.files import one_line
from eval.result import RESULT_FILE, Result, ResultError, read_result
from eval.tasks import BENCHMARKS
from tables.comparability import seed_differences
from tables.layout import benchmarks_of, metrics_of

logger = logging.getLogger(__name__)

_SOURCE_KINDS = {"format": str, "branch": str, "file_name": str, "epoch": int}
_LARGEST = 2**46  # seconds, bytes or items; of more seconds, Python knows no days
_LONGEST_NAME = 255  # no folder has a longer one
_LARGEST_PERCENTAGE = 1000  # in a breakdown, where a decay may be negative
# Backbone files from before these were recorded lack them.
_LATER_SOURCE_KINDS = {"recipe_sha256": str, "seed": int, "recipe": str, "pretraining_data": str, "log": str}


class CollectionError(ValueError):
    """There are result files that cannot be used; `problems` has one line for each, as the log has."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(f"{len(problems)} problem(s) in the result files; no table was written")
        self.problems = problems


@dataclass(kw_only=True, eq=False)
class Measurement:
    """A result and where it was found."""

    path: str  # Relative to the folder of runs, with forward slashes.
    folder: Path
    result: Result
    number: int = 0  # The number that the pages give it, in the order of the rows.

    @property
    def name(self) -> str:
        return self.result.backbone.name

    @property
    def anchor(self) -> str:
        """The anchor of its record in the report."""
        return f"r{self.number}"

    @property
    def recipe(self) -> tuple[str, ...] | None:
        """What identifies the backbone's recipe; None where its file does not record it (only checkpoints made here do)."""
        source = self.result.backbone.source
        if not source.get("recipe_sha256") or source.get("seed", -1) < 0:
            return None
        return source["recipe_sha256"], source["format"], source["branch"], str(source["epoch"])

    @property
    def draw(self) -> tuple[str, int]:
        """What chance decided: the backbone file and the seed of the evaluation."""
        return self.result.backbone.sha256, self.result.seed


class Slot(NamedTuple):
    """A place for metrics in the tables."""

    benchmark: str
    dataset: str
    """Data set and split, such as `CIFAR-10 test`, of a benchmark with a row per data set; else empty."""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was measured for one recipe: on one backbone, or on several that differ only in the seed of their pretraining."""

    measurements: tuple[Measurement, ...]  # By path.

    @cached_property
    def slots(self) -> dict[Slot, tuple[Measurement, ...]]:
        """For each place in the tables one result, or one for each seed. A result may fill several places."""
        found: dict[Slot, tuple[Measurement, ...]] = {}
        for measurement in self.measurements:
            for slot in slots_of(measurement.result):
                found[slot] = (*found.get(slot, ()), measurement)
        return found

    @cached_property
    def run_names(self) -> tuple[str, ...]:
        return tuple(sorted({measurement.name for measurement in self.measurements}))

    @property
    def name(self) -> str:
        """The name of the run, or the names of several runs."""
        return ", ".join(self.run_names)

    @property
    def architecture(self) -> str:
        return architecture_name(self.measurements[0].result.backbone.spec)


def slots_of(result: Result) -> tuple[Slot, ...]:
    """The places in the tables that a result fills."""
    test = result.datasets["test"]
    dataset = f"{test.name} {test.split}"
    return tuple(Slot(benchmark.key, dataset if benchmark.any_dataset else "") for benchmark in benchmarks_of(result))


def collect(runs: Path) -> list[Evaluated]:
    """Read every `result.json` below a folder, and gather the results of each row, sorted by name.

    `docs/tables.md` has the rules by which several results share a row as seeds of one recipe.

    Raises:
        ValueError: If there is no such folder.
        CollectionError: If a file is damaged, incomplete or of another version; if two hold the same metrics of the same name and
            seed; or if one name stands for two backbones that do not belong to one recipe.
    """
    if not runs.is_dir():
        raise ValueError(f"--runs {runs}: no such folder; pass the one that holds NAME/TASK/{RESULT_FILE}")
    problems: list[str] = []
    by_name: dict[str, list[Measurement]] = {}
    for path in sorted(runs.rglob(RESULT_FILE), key=str):
        try:
            result = read_result(path)
            if result.note and not result.metrics:
                logger.info("%s: %s", path, result.note)
                continue
            _check_result(result, path)
        except ResultError as error:
            problems.append(one_line(str(error)))
            continue
        measurement = Measurement(path=path.relative_to(runs).as_posix(), folder=path.parent, result=result)
        by_name.setdefault(result.backbone.name, []).append(measurement)
    named = [Evaluated(measurements=tuple(by_name[name])) for name in sorted(by_name)]
    problems += [problem for row in named for problem in _misfits(row.measurements)]
    if problems:
        for problem in problems:
            logger.error("%s", problem)
        raise CollectionError(problems)
    rows = _merge_recipes(named)
    for number, measurement in enumerate((measurement for row in rows for measurement in row.measurements), start=1):
        measurement.number = number
    return rows


def _misfits(measurements: Sequence[Measurement]) -> Iterator[str]:
    """The results of one name that do not belong with the earlier ones."""
    slots: dict[Slot, list[Measurement]] = {}
    for number, measurement in enumerate(measurements):
        problem = _backbone_problem(measurements[:number], measurement)
        for slot in slots_of(measurement.result):
            present = slots.setdefault(slot, [])
            problem = problem or _slot_problem(slot, present, measurement)
            present.append(measurement)
        if problem:
            yield f"{measurement.path}: {problem}; remove one or evaluate under another --name"


def _backbone_problem(earlier: Sequence[Measurement], measurement: Measurement) -> str:
    backbone, recipe = measurement.result.backbone, measurement.recipe
    for other in earlier:
        known = other.result.backbone
        is_other_seed = recipe is not None and recipe == other.recipe and backbone.source["seed"] != known.source["seed"]
        if backbone.sha256 != known.sha256 and not is_other_seed:
            return f"{backbone.name!r} is another backbone file here than in {other.path}, and not the same recipe with another seed"
    return ""


def _slot_problem(slot: Slot, present: Sequence[Measurement], measurement: Measurement) -> str:
    for other in present:
        if other.draw == measurement.draw:
            return f"a second {slot} result of {measurement.name!r} with the same seed, beside {other.path}"
        if different := seed_differences(other.result, measurement.result, slot.benchmark):
            names = ", ".join(different)
            return f"no further seed of the {slot} result {other.path} of {other.name!r}, since they differ in {names}"
    return ""


def _merge_recipes(named: Sequence[Evaluated]) -> list[Evaluated]:
    """Combine the names of one recipe where all of them fill the same places alike; the others stay as they are."""
    groups: dict[tuple[str, ...], list[Evaluated]] = {}
    for row in named:
        groups.setdefault(row.measurements[0].recipe or ("name", row.name), []).append(row)
    rows = []
    for group in groups.values():
        obstacle = _obstacle(group) if len(group) > 1 else ""
        if obstacle and len({row.measurements[0].result.backbone.sha256 for row in group}) > 1:
            logger.info("%s are of one recipe, and stay apart: %s", ", ".join(row.name for row in group), obstacle)
        if obstacle:
            rows += group
        else:
            members = (measurement for row in group for measurement in row.measurements)
            rows.append(Evaluated(measurements=tuple(sorted(members, key=lambda measurement: measurement.path))))
    return sorted(rows, key=lambda row: row.name)


def _obstacle(group: Sequence[Evaluated]) -> str:
    """Why names of one recipe cannot be the seeds of one row; empty if they can."""
    first, *others = group
    for other in others:
        if set(first.slots) != set(other.slots):
            return f"{first.name} and {other.name} were not measured on the same benchmarks"
        for slot, measurements in first.slots.items():
            if different := seed_differences(measurements[0].result, other.slots[slot][0].result, slot.benchmark):
                return f"{slot.benchmark} differs in {', '.join(different)}"
    seeds = [seed for row in group for seed in {found.result.backbone.source["seed"] for found in row.measurements}]
    return "two have the same seed" if len(set(seeds)) < len(seeds) else ""


def _check_result(result: Result, path: Path) -> None:
    """Raise ResultError, with the path and every fault, unless the result holds everything that the tables print.

    `eval.result.read_result` only checks that the fields are there; in a file that was edited or damaged they may hold anything.
    """
    if faults := list(_type_faults(result, Result, "")) or list(_content_faults(result)):
        raise ResultError(f"{path}: incomplete or damaged result ({'; '.join(faults)}); run the task again")
    if not benchmarks_of(result):
        known = dict.fromkeys(f"{benchmark.task} by {benchmark.protocol}" for benchmark in BENCHMARKS.values())
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
    units = {column.metric: column.unit for benchmark in benchmarks_of(result) for column in benchmark.columns}
    for name in dict.fromkeys(name for benchmark in benchmarks_of(result) for name in metrics_of(result, benchmark)):
        yield from _metric_faults(result, name, units.get(name, "percent"))
    if "test" not in result.datasets:
        yield "no test dataset"
    environment = result.environment
    sizes: dict[str, float] = {f"datasets.{role}.num_items": dataset.num_items for role, dataset in result.datasets.items()}
    sizes |= {"wall_time_s": result.wall_time_s, "peak_memory_bytes": result.peak_memory_bytes}
    sizes |= {"environment.world_size": environment.world_size, "environment.threads": environment.threads}
    yield from (f"{name} is {value}, not within 0 to {_LARGEST}" for name, value in sizes.items() if not 0 <= value <= _LARGEST)
    for item, metrics in result.breakdown.items():
        yield from (f"{name} of {item} is {value}" for name, value in metrics.items() if abs(value) > _LARGEST_PERCENTAGE)
    if not result.backbone.name:
        yield "the backbone has no name"
    if len(result.backbone.name) > _LONGEST_NAME:
        yield f"the backbone's name has {len(result.backbone.name):,} characters"
    try:
        spec_from_dict(result.backbone.spec, with_functions=True)
    except ValueError as error:
        yield f"backbone.spec: {error}"
    source = result.backbone.source
    yield from (f"backbone.source states no {key}" for key in _SOURCE_KINDS if key not in source)
    for key, kind in (_SOURCE_KINDS | _LATER_SOURCE_KINDS).items():
        if key in source:
            yield from _type_faults(source[key], kind, f"backbone.source.{key}")
    for name, values in result.protocol.deviations.items():
        if len(values) != 2:
            yield f"deviation {name} is not [published, used]"


def _metric_faults(result: Result, name: str, unit: str) -> Iterator[str]:
    metric = result.metrics.get(name)
    if metric is None:
        yield f"no metric {name}"
        return
    if not (math.isnan(metric.value) or 0 <= metric.value <= 100):
        yield f"metric {name} is {metric.value}, not within 0 to 100"
    if metric.unit != unit:
        yield f"metric {name} is in {metric.unit!r}, not in {unit}"
    if metric.interval_95 and not (len(metric.interval_95) == 2 and 0 <= metric.interval_95[0] <= metric.interval_95[1] <= 100):
        yield f"metric {name} has the interval {metric.interval_95}, not [low, high] within 0 to 100"
