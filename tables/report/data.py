"""The texts of the page: the tables with links, the sections of comparable results, and a record of each result."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from backbones.spec import architecture_name
from eval.registry import Benchmark
from eval.result import Result
from eval.tasks import BENCHMARKS
from tables.collect import Measurement
from tables.comparability import benchmark_differences, conditions_of, deviations_of, footnotes_of
from tables.layout import benchmarks_of
from tables.rows import VERDICTS, Cell, Row, Status, Table, standing

_COVERAGE = {"full": "the whole split", "subset": "a part of the split", "sample": "generated sample data in its format"}
_DIRTY = "-dirty"

_DERIVED_OPTIONS = frozenset({"batch"})
"""Entries of a result's config that are not options: the fine-tuning tasks record how the processes made up the batch."""


def make_grid(table: Table) -> dict[str, Any]:
    """A table as the template's macro `table` shows it."""
    layout = table.layout
    others = [name for name in layout.descriptors if name != "method"]
    titles = groupby(BENCHMARKS[column.benchmark].title for column in layout.columns)
    rows = []
    for number, row in enumerate(table.rows):
        # A row of single results has no origin of its own: each of its values links to its result.
        prefix = {"published": "p", "mean": "s"}.get(row.kind, "")
        anchor = f"{prefix}-{layout.name}-{number}" if prefix else ""
        kind = {"published": "published", "mean": f"mean of {len(row.seeds)} seeds"}.get(row.kind, "measured")
        words = [row.descriptors["method"], kind, *(row.descriptors[name] for name in others)]
        cells = [row.cells.get(column.key) for column in layout.columns]
        rows.append({"row": row, "anchor": anchor, "words": words, "cells": cells})
    return {
        "anchor": f"table-{layout.name}",
        "layout": layout,
        "spans": [("", len(others) + 2), *((title, len(list(columns))) for title, columns in titles)],
        "columns": [
            ("method", False),
            ("row", False),
            *((name.replace("_", " "), _are_numbers(table.rows, name)) for name in others),
            *((column.heading, True) for column in layout.columns),
        ],
        "rows": rows,
    }


def verdict_of(cell: Cell) -> str:
    """What a value is worth, and all that is remarked on it."""
    footnotes = (footnotes_of(measurement.result, cell.column.benchmark) for measurement in cell.measurements)
    verdicts = [sentence(cell.status), *([f"does not compete: {cell.incomparable}"] if cell.incomparable else [])]
    verdicts += dict.fromkeys(text for of_result in footnotes for text in of_result.values())
    return "; ".join(verdicts)


def _are_numbers(rows: Sequence[Row], descriptor: str) -> bool:
    """Whether a column can be sorted by number."""
    texts = [row.descriptors[descriptor] for row in rows if row.descriptors[descriptor]]
    return bool(texts) and all(re.fullmatch(r"[\d.]+", text) for text in texts)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Comparable results of one benchmark, which share a section."""

    benchmark: Benchmark
    measurements: list[Measurement]

    @property
    def anchor(self) -> str:
        return f"{self.benchmark.key}-{self.measurements[0].number}"

    @property
    def title(self) -> str:
        dataset = self.measurements[0].result.datasets["test"]
        data = f"{dataset.name} {dataset.split}"
        return data if data.startswith(self.benchmark.title) else f"{self.benchmark.title}: {data}"

    @property
    def summary(self) -> str:
        """Data and protocol of all measurements, as a sentence."""
        result = self.measurements[0].result
        data, protocol = result.datasets["test"], result.protocol
        deviations = sorted(deviations_of(result, self.benchmark.key))
        deviating = f", deviating in {', '.join(deviations)}" if deviations else ""
        words = f"{data.num_items} items, {_COVERAGE[data.coverage]}; protocol {protocol.name} version {protocol.version}"
        return f"{words}{deviating}."


def group_results(measurements: Sequence[Measurement]) -> list[Group]:
    """The groups of comparable results, in the order of the benchmarks, then of their first result."""
    groups: list[Group] = []
    for benchmark in BENCHMARKS.values():
        by_conditions: dict[tuple[tuple[str, str], ...], list[Measurement]] = {}
        for measurement in measurements:
            if benchmark in benchmarks_of(measurement.result):
                conditions = conditions_of(measurement.result, benchmark.key)
                by_conditions.setdefault(tuple(sorted(conditions.items())), []).append(measurement)
        groups += [Group(benchmark=benchmark, measurements=members) for members in by_conditions.values()]
    return groups


def make_section(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    """The heading of a group, numbered if several have the same, and how it differs from the first group of its benchmark."""
    alike = [other.anchor for other in groups if other.title == group.title]
    first = next(other for other in groups if other.benchmark == group.benchmark)
    differences = benchmark_differences(first.measurements[0].result, group.measurements[0].result, group.benchmark.key)
    return {
        "group": group,
        "title": group.title if len(alike) == 1 else f"{group.title} ({alike.index(group.anchor) + 1})",
        "apart": [str(difference) for difference in differences],
    }


def page_path(measurement: Measurement, relative: str) -> str:
    """The path of an artefact below the folder of runs, by which the page names it."""
    return f"{measurement.path.rpartition('/')[0]}/{relative}".lstrip("/")


def sentence(status: Status) -> str:
    """What a value is worth, as a sentence without the full stop."""
    return VERDICTS[status][0].upper() + VERDICTS[status][1:]


def make_record(measurement: Measurement) -> dict[str, Any]:
    """Everything about one result, as the template's macro `record` shows it."""
    result = measurement.result
    code, dirty = result.environment.code.removesuffix(_DIRTY), result.environment.code.endswith(_DIRTY)
    remark = "The code had changes that no commit holds." if dirty else ""
    files = {name: page_path(measurement, path) for name, path in result.artefacts.items()}
    details = {
        "Settings of the protocol": result.protocol.settings,
        "Options of the task": result.config,
        "Package versions": result.environment.packages,
        "Backbone's shape": result.backbone.spec,
        "Files beside the result": files,
    }
    return {
        "measurement": measurement,
        "title": f"{measurement.name} · {' and '.join(benchmark.title for benchmark in benchmarks_of(result))}",
        "verdicts": _verdicts(result),
        "metrics": [
            {
                "name": name,
                "value": repr(float(metric.value)) if math.isfinite(metric.value) else "no value",
                "unit": f"{metric.unit}, {'higher' if metric.higher_is_better else 'lower'} is better",
                "interval": " to ".join(f"{end:.2f}" for end in metric.interval_95),
            }
            for name, metric in result.metrics.items()
        ],
        "deviations": [
            line for name, values in sorted(result.protocol.deviations.items()) for line in _deviation(name, *values)
        ],
        "facts": _facts(measurement),
        "details": [(title, [(name, _text(value)) for name, value in pairs.items()]) for title, pairs in details.items()],
        "checkout": "" if code == "unknown" else f"git checkout {code}",
        "remark": "The result does not state the commit of the code." if code == "unknown" else remark,
        "command": reproduction_command(result),
    }


def _verdicts(result: Result) -> list[tuple[Status, str]]:
    """What the result is worth, for each benchmark if they differ."""
    found = {benchmark.title: standing(result, benchmark.key) for benchmark in benchmarks_of(result)}
    if len(set(found.values())) == 1:
        status = next(iter(found.values()))
        return [(status, sentence(status))]
    return [(status, f"{title}: {VERDICTS[status]}") for title, status in found.items()]


def _deviation(name: str, published: Any, used: Any) -> list[tuple[str, str, str]]:
    """Setting, published and used value; for a setting with parts, those of each part that differs."""
    if not (isinstance(published, dict) and isinstance(used, dict)):
        return [(name, _text(published), _text(used))]
    parts = {part: (published.get(part, "none"), used.get(part, "none")) for part in (*published, *used)}
    return [line for part, values in parts.items() if values[0] != values[1] for line in _deviation(f"{name}.{part}", *values)]


def _facts(measurement: Measurement) -> list[tuple[str, str, bool]]:
    """Label, text, and whether the text is set as code, because it is a name or a digest."""
    result = measurement.result
    backbone, source, environment = result.backbone, result.backbone.source, result.environment
    epoch = source.get("epoch", -1)
    processes = f", {environment.world_size} processes" if environment.world_size > 1 else ""
    facts = [
        ("Result file", measurement.path, True),
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
        *([("Pretrained", _pretrained(source), False)] if source.get("log") else []),
        ("Checkpoint, SHA-256", str(source.get("sha256", "not stated")), "sha256" in source),
        ("Seed", str(result.seed), False),
        ("Device", f"{environment.device}{processes}", False),
        ("Wall time, h:mm:ss", str(timedelta(seconds=round(result.wall_time_s))), False),
        ("Peak memory", f"{result.peak_memory_bytes / 2**30:.2f} GiB", False),
        ("Code, commit", environment.code, True),
        ("Inputs, SHA-256", result.inputs_sha256, True),
    ]


def _pretrained(source: Mapping[str, Any]) -> str:
    recipe, data = (source.get(name) or "not stated" for name in ("recipe", "pretraining_data"))
    return f"recipe {recipe}, data {data}, log {source['log']}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reproduction_command(result: Result) -> str:
    """The command that makes a result again, for a POSIX shell, with one option per line.

    It gives every option, so that it still means the same if a default changes. Options that are None are left out: None is the
    default wherever it is allowed.
    """
    gpus = {"gpus": result.environment.world_size} if result.environment.world_size > 1 else {}
    lines = [f"python -m eval {result.task}"]
    for name, value in (result.config | gpus).items():
        if value is not None and name not in _DERIVED_OPTIONS:
            option, text = f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)
            # `=` keeps a value that begins with a dash from being read as an option.
            lines.append(shlex.join([f"{option}={text}"] if text.startswith("-") else [option, text]))
    return " \\\n    ".join(lines)
