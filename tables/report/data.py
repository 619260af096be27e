"""The texts of the page: the tables with links, the sections of comparable results, and a record of each result."""

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from common.cli import as_arguments
from eval.registry import Benchmark
from eval.result import Result
from eval.tasks import BENCHMARKS, TASKS
from tables.collect import Measurement
from tables.comparability import benchmark_differences, conditions_of, footnotes_of
from tables.layout import benchmarks_of
from tables.rows import VERDICTS, Cell, Row, Status, Table, standing

_DIRTY = "-dirty"


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
    return {
        "measurement": measurement,
        "title": f"{measurement.name} · {' and '.join(benchmark.title for benchmark in benchmarks_of(result))}",
        "verdicts": _verdicts(result),
        "deviations": [
            line for name, values in sorted(result.protocol.deviations.items()) for line in _deviation(name, *values)
        ],
        "files": {name: page_path(measurement, path) for name, path in result.artefacts.items()},
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
        return [(name, text_of(published), text_of(used))]
    parts = {part: (published.get(part, "none"), used.get(part, "none")) for part in (*published, *used)}
    return [line for part, values in parts.items() if values[0] != values[1] for line in _deviation(f"{name}.{part}", *values)]


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reproduction_command(result: Result) -> str:
    """The command that makes a result again, for a POSIX shell, with one option per line.

    It gives every option, so that it still means the same if a default changes. Options that are None are left out: None is the
    default wherever it is allowed.
    """
    gpus = {"gpus": result.environment.world_size} if result.environment.world_size > 1 else {}
    lines = [f"python -m eval {result.task}"]
    # Tasks record more than their options, such as how the processes made up a batch.
    options = {field.name for field in dataclasses.fields(TASKS[result.task].config)}
    for name, value in (result.config | gpus).items():
        if value is not None and name in {*options, *gpus}:
            lines.append(shlex.join(as_arguments({name.replace("_", "-"): value})))
    return " \\\n    ".join(lines)
