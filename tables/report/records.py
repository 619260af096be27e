"""The provenance of a result as the page shows it: everything that the file states, in the reader's words."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.result import Dataset, Metric, Result
from tables.architecture import architecture_name
from tables.layout import benchmarks_of
from tables.report.artefacts import page_path
from tables.report.command import reproduction_command
from tables.report.groups import Entry
from tables.rows import Status, standing

VERDICTS: dict[Status, str] = {
    "published": "Published",
    "measured": "Benchmark number: the whole benchmark by the published protocol",
    "measured-deviating": "Not a benchmark number: the protocol deviates from the published one",
    "measured-subset": "Not a benchmark number: measured on a part of the benchmark",
    "measured-sample": "Not a benchmark number: measured on generated sample data",
}

_COVERAGE = {"full": "the whole split", "subset": "a part of the split", "sample": "generated sample data in its format"}
_DIRTY = "-dirty"
_GIBI = 2**30


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric in full precision."""

    name: str
    """As in the result."""
    value: str
    """All digits; `no value` where there is none."""
    unit: str
    """Such as `percent`."""
    direction: str
    """Which way is better."""
    interval: str
    """The 95 % interval; empty where the task gives none."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A line of a record."""

    label: str
    """What it is."""
    value: str
    """What the result says."""
    code: bool = False
    """Whether it is a name or digest, to be set as code."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One result."""

    entry: Entry
    """Whose."""
    title: str
    """Backbone and task."""
    verdicts: list[tuple[Status, str]]
    """What its figures are worth, and the same in a sentence; one for each benchmark where they differ."""
    figures: list[Figure]
    """Every metric."""
    deviations: list[tuple[str, str, str]]
    """Setting, published value, used value."""
    facts: list[Fact]
    """Data, backbone, run."""
    details: list[tuple[str, list[tuple[str, str]]]]
    """Longer lists under a heading: protocol, options, packages, files."""
    checkout: str
    """Command that fetches the code; empty where the commit is unknown."""
    remark: str
    """What keeps the command from repeating the result exactly; empty if nothing is known to."""
    command: str
    """Makes the result again."""


def make_record(entry: Entry) -> Record:
    """Everything about one result."""
    result = entry.result
    code, dirty = result.environment.code.removesuffix(_DIRTY), result.environment.code.endswith(_DIRTY)
    known = code != "unknown"
    return Record(
        entry=entry,
        title=f"{entry.name} · {_benchmarks(result)}",
        verdicts=_verdicts(result),
        figures=[_figure(name, metric) for name, metric in result.metrics.items()],
        deviations=[
            line
            for name, (published, used) in sorted(result.protocol.deviations.items())
            for line in _deviation(name, published, used)
        ],
        facts=_facts(entry),
        details=[
            ("Settings of the protocol", _pairs(result.protocol.settings)),
            ("Options of the task", _pairs(result.config)),
            ("Package versions", _pairs(result.environment.packages)),
            ("Backbone's shape", _pairs(result.backbone.spec)),
            (
                "Files beside the result",
                [(name, page_path(entry.measurement, path)) for name, path in result.artefacts.items()],
            ),
        ],
        checkout=f"git checkout {code}" if known else "",
        remark=_remark(known, dirty),
        command=reproduction_command(result),
    )


def _benchmarks(result: Result) -> str:
    return " and ".join(benchmark.title for benchmark in benchmarks_of(result))


def _verdicts(result: Result) -> list[tuple[Status, str]]:
    found = {benchmark.title: standing(result, benchmark.key) for benchmark in benchmarks_of(result)}
    if len(set(found.values())) == 1:
        status = next(iter(found.values()))
        return [(status, VERDICTS[status])]
    return [(status, f"{title}: {VERDICTS[status]}") for title, status in found.items()]


def _remark(known: bool, dirty: bool) -> str:
    if not known:
        return "The result does not state the commit of the code."
    return "The code had changes that no commit holds." if dirty else ""


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


def _figure(name: str, metric: Metric) -> Figure:
    low_high = [f"{value:.2f}" for value in metric.interval_95]
    return Figure(
        name=name,
        value=repr(float(metric.value)) if math.isfinite(metric.value) else "no value",
        unit=metric.unit,
        direction="higher is better" if metric.higher_is_better else "lower is better",
        interval=" to ".join(low_high),
    )


def _facts(entry: Entry) -> list[Fact]:
    result = entry.result
    backbone, source, environment = result.backbone, result.backbone.source, result.environment
    epoch = source.get("epoch", -1)
    processes = f", {environment.world_size} processes" if environment.world_size > 1 else ""
    return [
        Fact(label="Result file", value=entry.measurement.path, code=True),
        Fact(label="Protocol", value=f"{result.protocol.name}, version {result.protocol.version}"),
        *_data_facts(result),
        Fact(label="Backbone", value=f"{backbone.name}, {architecture_name(backbone.spec)}"),
        Fact(label="Backbone file, SHA-256", value=backbone.sha256, code=True),
        Fact(
            label="Converted from",
            value=f"{source.get('file_name')}: format {source.get('format')}, branch {source.get('branch')}, "
            + (f"epoch {epoch}" if epoch >= 0 else "epoch not stated"),
        ),
        Fact(label="Checkpoint, SHA-256", value=str(source.get("sha256", "not stated")), code="sha256" in source),
        Fact(label="Seed", value=str(result.seed)),
        Fact(label="Device", value=f"{environment.device}{processes}"),
        Fact(label="Wall time", value=_duration(result.wall_time_s)),
        Fact(label="Peak memory", value=f"{result.peak_memory_bytes / _GIBI:.2f} GiB"),
        Fact(label="Code, commit", value=environment.code, code=True),
        Fact(label="Inputs, SHA-256", value=result.inputs_sha256, code=True),
    ]


def _data_facts(result: Result) -> list[Fact]:
    facts = []
    for role, dataset in sorted(result.datasets.items()):
        label = {"test": "Tested on", "train": "Trained on"}.get(role, role)
        facts.append(Fact(label=label, value=_data(dataset)))
        facts.append(Fact(label=f"{label}, SHA-256 of the listing", value=dataset.listing_sha256, code=True))
    return facts


def _data(dataset: Dataset) -> str:
    return f"{dataset.name} {dataset.split}, {_COVERAGE[dataset.coverage]}: {dataset.num_items} items"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, whole = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole} s" if minutes else f"{seconds:.1f} s"


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _text(value)) for name, value in values.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
