"""Every result under a folder, checked as far as the tables rely on it, by the row that it belongs to."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from backbones.spec import architecture_name
from eval.result import RESULT_FILE, Result, ResultError, read_result
from eval.tasks import BENCHMARKS
from tables.comparability import seed_differences
from tables.layout import benchmarks_of, metrics_of

logger = logging.getLogger(__name__)

_SOURCE_KINDS = {"format": str, "branch": str, "file_name": str, "epoch": int}
_LATER_SOURCE_KINDS = {"recipe_sha256": str, "seed": int}  # backbone files from before these were recorded have neither


class CollectionError(ValueError):
    """Result files that cannot be used; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(f"{len(problems)} problem(s) in the result files; no table was written")
        self.problems = problems


@dataclass(kw_only=True)
class Measurement:
    """One result and its place."""

    path: str
    """Relative to the folder of runs, with forward slashes."""
    folder: Path
    result: Result
    number: int = 0
    """Its number on the pages, in the order of the rows."""

    @property
    def name(self) -> str:
        return self.result.backbone.name

    @property
    def anchor(self) -> str:
        """The anchor of its record in the report."""
        return f"r{self.number}"

    @property
    def draw(self) -> tuple[str, int]:
        """What chance decided: the backbone file and the seed of the evaluation."""
        return self.result.backbone.sha256, self.result.seed


class Slot(NamedTuple):
    """A place for metrics in the tables."""

    benchmark: str
    dataset: str
    """Such as `CIFAR-10 test`, where the benchmark stands in a row per data set; else empty."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was measured on one recipe: on one backbone, or on several that differ in the seed of their pretraining alone."""

    name: str
    """The run's name; of several, all of them, separated by commas."""
    architecture: str
    slots: dict[Slot, tuple[Measurement, ...]]
    """The results for each place in the tables, by path: one, or one for each seed. A result may fill several places."""

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every result once, by path."""
        by_path = {measurement.path: measurement for slot in self.slots.values() for measurement in slot}
        return tuple(by_path[path] for path in sorted(by_path))

    @property
    def run_names(self) -> tuple[str, ...]:
        return tuple(sorted({measurement.result.backbone.name for measurement in self.measurements}))


def slots_of(result: Result) -> tuple[Slot, ...]:
    """The places in the tables that a result fills."""
    test = result.datasets["test"]
    return tuple(Slot(one.key, f"{test.name} {test.split}" if one.any_dataset else "") for one in benchmarks_of(result))


def collect(runs: Path) -> list[Evaluated]:
    """Read every `result.json` below a folder.

    Several results of one recipe are brought together by these rules and no others:

    - Under one name, two results fill one place if they have the same protocol, settings and data (`seed_differences`) and differ in
      the seed of the evaluation or in the backbone.
    - Backbones are of one recipe if their files record the same digest of the pretraining's settings apart from its seed, the same
      layout, branch and epoch, and different seeds. Such backbones may have one name.
    - Several names are brought together in one row if their backbones are of one recipe and each has results for the same places,
      as above.

    Returns:
        What stands in a row each, by name.

    Raises:
        ValueError: If there is no such folder.
        CollectionError: If a file is damaged, incomplete or of another version; if two hold the same metrics of the same name and
            seed; or if one name stands for two backbones that are not of one recipe.
    """
    if not runs.is_dir():
        raise ValueError(f"--runs {runs}: no such folder; pass the one that holds NAME/TASK/{RESULT_FILE}")
    problems: list[str] = []
    by_name: dict[str, list[Measurement]] = {}
    for path in sorted(runs.rglob(RESULT_FILE)):
        try:
            result = read_result(path)
            _check_result(result, path)
        except ResultError as error:
            problems.append(" ".join(str(error).split()))
            continue
        measurement = Measurement(path=path.relative_to(runs).as_posix(), folder=path.parent, result=result)
        by_name.setdefault(result.backbone.name, []).append(measurement)
    named = [_gather(name, by_name[name], problems) for name in sorted(by_name)]
    if problems:
        raise CollectionError(problems)
    rows = _merge_recipes(named)
    for number, one in enumerate((one for row in rows for one in row.measurements), start=1):
        one.number = number
    return rows


def _recipe_of(result: Result) -> tuple[str, ...] | None:
    """What a backbone's recipe is known by; None where its file does not record it (only checkpoints made here state it)."""
    source = result.backbone.source
    if not source.get("recipe_sha256") or source.get("seed", -1) < 0:
        return None
    return source["recipe_sha256"], source["format"], source["branch"], str(source["epoch"])


def _gather(name: str, measurements: Sequence[Measurement], problems: list[str]) -> Evaluated:
    """Bring one name's results together; what does not fit is added to `problems`."""
    slots: dict[Slot, list[Measurement]] = {}
    for number, one in enumerate(measurements):
        problem = _backbone_problem(name, measurements[:number], one)
        for slot in slots_of(one.result):
            present = slots.setdefault(slot, [])
            problem = problem or _slot_problem(name, slot, present, one)
            present.append(one)
        if problem:
            problems.append(f"{one.path}: {problem}; remove one or evaluate under another --name")
    return Evaluated(
        name=name,
        architecture=architecture_name(measurements[0].result.backbone.spec),
        slots={slot: tuple(found) for slot, found in slots.items()},
    )


def _backbone_problem(name: str, earlier: Sequence[Measurement], one: Measurement) -> str:
    for first in earlier:
        backbones = first.result.backbone, one.result.backbone
        recipes = {_recipe_of(first.result), _recipe_of(one.result)}
        is_other_seed = len(recipes) == 1 and None not in recipes and backbones[0].source["seed"] != backbones[1].source["seed"]
        if backbones[0].sha256 != backbones[1].sha256 and not is_other_seed:
            return f"{name!r} is another backbone file here than in {first.path}, and not the same recipe with another seed"
    return ""


def _slot_problem(name: str, slot: Slot, present: Sequence[Measurement], one: Measurement) -> str:
    place = " ".join(filter(None, slot))
    for earlier in present:
        if earlier.draw == one.draw:
            return f"a second {place} result of {name!r} with the same seed, beside {earlier.path}"
        if different := seed_differences(earlier.result, one.result, slot.benchmark):
            return (
                f"no further seed of the {place} result {earlier.path} of {name!r}, since they differ in {', '.join(different)}"
            )
    return ""


def _merge_recipes(named: Sequence[Evaluated]) -> list[Evaluated]:
    """Bring names of one recipe together, where all fill the same places alike; the others stay as they are."""
    groups: dict[tuple[str, ...], list[Evaluated]] = {}
    for one in named:
        groups.setdefault(_recipe_of(one.measurements[0].result) or ("name", one.name), []).append(one)
    rows = []
    for group in groups.values():
        obstacle = _obstacle(group) if len(group) > 1 else ""
        if obstacle:
            logger.info("%s are of one recipe, and stay apart: %s", ", ".join(one.name for one in group), obstacle)
        rows += group if obstacle or len(group) == 1 else [_join(group)]
    return sorted(rows, key=lambda one: one.name)


def _obstacle(group: Sequence[Evaluated]) -> str:
    """Why names of one recipe are no seeds of one row; empty if they are."""
    first, *others = group
    for other in others:
        if set(first.slots) != set(other.slots):
            return f"{first.name} and {other.name} were not measured on the same benchmarks"
        for slot, measurements in first.slots.items():
            if different := seed_differences(measurements[0].result, other.slots[slot][0].result, slot.benchmark):
                return f"{slot.benchmark} differs in {', '.join(different)}"
    seeds = [seed for row in group for seed in {one.result.backbone.source["seed"] for one in row.measurements}]
    return "two have the same seed" if len(set(seeds)) < len(seeds) else ""


def _join(group: Sequence[Evaluated]) -> Evaluated:
    slots = {
        slot: tuple(sorted((one for row in group for one in row.slots[slot]), key=lambda one: one.path))
        for slot in group[0].slots
    }
    return Evaluated(name=", ".join(one.name for one in group), architecture=group[0].architecture, slots=slots)


def _check_result(result: Result, path: Path) -> None:
    """Raise ResultError, with the path and every fault, unless the result holds everything that the tables print.

    `eval.result.read_result` sees to the fields' presence; a file edited or damaged since may still hold anything in them.
    """
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
    if metric.unit != "percent":
        yield f"metric {name} is in {metric.unit!r}, not in percent"
    if metric.interval_95 and not (len(metric.interval_95) == 2 and metric.interval_95[0] <= metric.interval_95[1]):
        yield f"metric {name} has the interval {metric.interval_95}, not [low, high]"
