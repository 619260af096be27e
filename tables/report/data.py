"""What the page says of results: which may share a section, and everything that a result states, in the reader's words."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backbones.spec import architecture_name
from eval.result import Dataset, Metric, Result
from eval.tasks import BENCHMARKS, Benchmark
from tables.collect import Evaluated, Measurement
from tables.comparability import benchmark_differences, conditions_of, deviations_of
from tables.layout import benchmarks_of
from tables.render import numbered
from tables.rows import VERDICTS, Status, standing

_COVERAGE = {"full": "the whole split", "subset": "a part of the split", "sample": "generated sample data in its format"}
_DIRTY = "-dirty"
_GIBI = 2**30

_DERIVED_OPTIONS = frozenset({"batch"})
"""What the fine-tuning tasks add to their options in a result: how the processes made up the batch."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A measurement and its number on the page."""

    number: int
    """The same as that of its note in the Markdown tables."""
    measurement: Measurement
    """The result and its place."""

    @property
    def result(self) -> Result:
        """The result."""
        return self.measurement.result

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return self.result.backbone.name

    @property
    def anchor(self) -> str:
        """Anchor of its record on the page."""
        return f"r{self.number}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Comparable results of one benchmark, which share a section."""

    benchmark: Benchmark
    """The benchmark."""
    entries: list[Entry]
    """By number."""
    title: str
    """Benchmark and split; numbered where several sections would have the same."""
    apart: list[str]
    """Where an earlier section shows the same benchmark: why these results may not be compared with the first of those."""

    @property
    def anchor(self) -> str:
        """Anchor of its section."""
        return f"{self.benchmark.key}-{self.entries[0].number}"

    def status(self, entry: Entry) -> Status:
        """What an entry's metrics for the benchmark are worth."""
        return standing(entry.result, self.benchmark.key)

    @property
    def summary(self) -> str:
        """Data and protocol of all entries, as a sentence."""
        result = self.entries[0].result
        data, protocol = result.datasets["test"], result.protocol
        deviations = sorted(deviations_of(result, self.benchmark.key))
        return (
            f"{data.num_items} items, {_COVERAGE[data.coverage]}; protocol {protocol.name} version {protocol.version}"
            + (f", deviating in {', '.join(deviations)}" if deviations else "")
            + "."
        )


def number_entries(evaluated: Sequence[Evaluated]) -> list[Entry]:
    """Every measurement once, by its number."""
    by_path = {measurement.path: measurement for one in evaluated for measurement in one.measurements}
    return [Entry(number=number, measurement=by_path[path]) for path, number in numbered(evaluated).items()]


def group_entries(entries: Sequence[Entry]) -> list[Group]:
    """Comparable results together, in the order of the benchmarks, then of their first result."""
    groups: list[Group] = []
    for benchmark in BENCHMARKS.values():
        by_conditions: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
        for entry in entries:
            if benchmark in benchmarks_of(entry.result):
                conditions = conditions_of(entry.result, benchmark.key)
                by_conditions.setdefault(tuple(sorted(conditions.items())), []).append(entry)
        titles: dict[str, list[list[Entry]]] = {}
        for members in by_conditions.values():
            titles.setdefault(_title(benchmark, members[0].result.datasets["test"]), []).append(members)
        first: Result | None = None
        for members in by_conditions.values():
            title = _title(benchmark, members[0].result.datasets["test"])
            alike = titles[title]
            result = members[0].result
            groups.append(
                Group(
                    benchmark=benchmark,
                    entries=members,
                    title=title if len(alike) == 1 else f"{title} ({alike.index(members) + 1})",
                    apart=[str(one) for one in benchmark_differences(first, result, benchmark.key)] if first else [],
                )
            )
            first = first or result
    return groups


def _title(benchmark: Benchmark, dataset: Dataset) -> str:
    data = f"{dataset.name} {dataset.split}"
    return data if data.startswith(benchmark.title) else f"{benchmark.title}: {data}"


def page_path(measurement: Measurement, relative: str) -> str:
    """What the page calls an artefact: its path below the folder of runs."""
    return f"{measurement.path.rpartition('/')[0]}/{relative}".lstrip("/")


def sentence(status: Status) -> str:
    """What a value is worth, as a sentence without its full stop."""
    return VERDICTS[status][0].upper() + VERDICTS[status][1:]


def make_record(entry: Entry) -> dict[str, Any]:
    """Everything about one result, as the template's macro `record` shows it."""
    result = entry.result
    code, dirty = result.environment.code.removesuffix(_DIRTY), result.environment.code.endswith(_DIRTY)
    remark = "The code had changes that no commit holds." if dirty else ""
    files = {name: page_path(entry.measurement, path) for name, path in result.artefacts.items()}
    details = {
        "Settings of the protocol": result.protocol.settings,
        "Options of the task": result.config,
        "Package versions": result.environment.packages,
        "Backbone's shape": result.backbone.spec,
        "Files beside the result": files,
    }
    return {
        "entry": entry,
        "title": f"{entry.name} · {' and '.join(benchmark.title for benchmark in benchmarks_of(result))}",
        "verdicts": _verdicts(result),
        "metrics": [_metric(name, metric) for name, metric in result.metrics.items()],
        "deviations": [
            line
            for name, (published, used) in sorted(result.protocol.deviations.items())
            for line in _deviation(name, published, used)
        ],
        "facts": _facts(entry),
        "details": [(title, [(name, _text(value)) for name, value in pairs.items()]) for title, pairs in details.items()],
        "checkout": "" if code == "unknown" else f"git checkout {code}",
        "remark": "The result does not state the commit of the code." if code == "unknown" else remark,
        "command": reproduction_command(result),
    }


def _verdicts(result: Result) -> list[tuple[Status, str]]:
    """What the result is worth; for each benchmark where they differ."""
    found = {benchmark.title: standing(result, benchmark.key) for benchmark in benchmarks_of(result)}
    if len(set(found.values())) == 1:
        status = next(iter(found.values()))
        return [(status, sentence(status))]
    return [(status, f"{title}: {VERDICTS[status]}") for title, status in found.items()]


def _metric(name: str, metric: Metric) -> dict[str, str]:
    return {
        "name": name,
        "value": repr(float(metric.value)) if math.isfinite(metric.value) else "no value",
        "unit": f"{metric.unit}, {'higher' if metric.higher_is_better else 'lower'} is better",
        "interval": " to ".join(f"{end:.2f}" for end in metric.interval_95),
    }


def _deviation(name: str, published: Any, used: Any) -> list[tuple[str, str, str]]:
    """Setting, published and used value; of a setting with parts, the parts that differ."""
    if not (isinstance(published, dict) and isinstance(used, dict)):
        return [(name, _text(published), _text(used))]
    lines: list[tuple[str, str, str]] = []
    for part in dict.fromkeys((*published, *used)):
        if part not in published or part not in used:
            before, after = (_text(values[part]) if part in values else "none" for values in (published, used))
            lines.append((f"{name}.{part}", before, after))
        elif published[part] != used[part]:
            lines += _deviation(f"{name}.{part}", published[part], used[part])
    return lines


def _facts(entry: Entry) -> list[tuple[str, str, bool]]:
    """Label, text, and whether the text is a name or digest to be set as code."""
    result = entry.result
    backbone, source, environment = result.backbone, result.backbone.source, result.environment
    epoch = source.get("epoch", -1)
    processes = f", {environment.world_size} processes" if environment.world_size > 1 else ""
    facts = [
        ("Result file", entry.measurement.path, True),
        ("Protocol", f"{result.protocol.name}, version {result.protocol.version}", False),
    ]
    for role, dataset in sorted(result.datasets.items()):
        label = {"test": "Tested on", "train": "Trained on"}.get(role, role)
        words = f"{dataset.name} {dataset.split}, {_COVERAGE[dataset.coverage]}: {dataset.num_items} items"
        facts += [(label, words, False), (f"{label}, SHA-256 of the listing", dataset.listing_sha256, True)]
    origin = f"{source.get('file_name')}: format {source.get('format')}, branch {source.get('branch')}, "
    return [
        *facts,
        ("Backbone", f"{backbone.name}, {architecture_name(backbone.spec)}", False),
        ("Backbone file, SHA-256", backbone.sha256, True),
        ("Converted from", origin + (f"epoch {epoch}" if epoch >= 0 else "epoch not stated"), False),
        ("Checkpoint, SHA-256", str(source.get("sha256", "not stated")), "sha256" in source),
        ("Seed", str(result.seed), False),
        ("Device", f"{environment.device}{processes}", False),
        ("Wall time", _duration(result.wall_time_s), False),
        ("Peak memory", f"{result.peak_memory_bytes / _GIBI:.2f} GiB", False),
        ("Code, commit", environment.code, True),
        ("Inputs, SHA-256", result.inputs_sha256, True),
    ]


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, whole = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole} s" if minutes else f"{seconds:.1f} s"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reproduction_command(result: Result) -> str:
    """The command that makes a result again, for a POSIX shell, an option per line.

    Every option is spelt out, so that the command means the same where a default has changed since. An option without a value
    (None) is left out: None is the default wherever it is allowed.
    """
    options: Mapping[str, Any] = result.config | (
        {"gpus": result.environment.world_size} if result.environment.world_size > 1 else {}
    )
    lines = [f"python -m eval {result.task}"]
    for name, value in options.items():
        if value is not None and name not in _DERIVED_OPTIONS:
            option, text = f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)
            # A value that looks like an option must not be taken for one.
            lines.append(shlex.join([f"{option}={text}"] if text.startswith("-") else [option, text]))
    return " \\\n    ".join(lines)
