"""What the commands print when they end: aligned tables of metrics, what these are worth, and where the files are."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from eval.result import RESULT_FILE, Metric, Result, read_result
from eval.tasks import TASKS
from tables.rows import standing

_HEADINGS = ("task", "metric", "value", "95 % interval", "standing", "time", "memory")
_RIGHT = ("value", "time", "memory")
_REMARKS = {
    "sample": "[sample]: generated data, shortened runs; not a benchmark number",
    "subset": "[subset]: a part of the benchmark; not a benchmark number",
    "deviating": "[deviating]: departs from the published protocol; not a benchmark number",
}
_DEVIATIONS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A task that was run."""

    task: str
    folder: Path  # --output of the task
    status: int  # the exit status: 0 if it succeeded


def summary(ended: Sequence[Ended], tables: Sequence[Path]) -> str:
    """The metrics of the tasks that finished, which tasks failed, and where the files are; `tables` are those made of the results."""
    # A result in a failed task's folder is of other inputs: it is not read.
    results = {one.task: read_result(one.folder / RESULT_FILE) for one in ended if not one.status}
    lines = [line for task, result in results.items() for line in _lines(task, result)]
    failed = [
        f"{one.task}  failed with status {one.status}, see above; another --name keeps runs apart"
        for one in ended
        if one.status
    ]
    remarks = [remark for word, remark in _REMARKS.items() if any(f"[{word}]" in line for line in lines)]
    remarks += [
        f"{task}: differs from the published protocol in {_shortened(sorted(result.protocol.deviations))}"
        for task, result in results.items()
        if result.protocol.deviations
    ]
    files = [(one.task, str(one.folder / RESULT_FILE)) for one in ended if not one.status]
    parts = [
        text_table(_HEADINGS, lines, _RIGHT),
        "\n".join(failed),
        "\n".join(remarks),
        text_table(("what", "file"), [*files, *table_files(tables)]),
    ]
    return "\n\n".join(part for part in parts if part)


def table_files(tables: Sequence[Path]) -> list[tuple[str, str]]:
    """Label and path of each page to read; the other files are only counted."""
    pages = {".md": "tables", ".html": "report"}
    files = [(pages[path.suffix], str(path)) for path in tables if path.suffix in pages]
    others = [path for path in tables if path.suffix not in pages]
    if others:
        suffixes = ", ".join(sorted({path.suffix for path in others}))
        files.append(("more", f"{len(others)} files ({suffixes}) in {others[0].parent}"))
    return files


def standing_in_words(result: Result, benchmark: str) -> str:
    """What a result's metrics for a benchmark (its key) are worth: `benchmark`, `[sample]`, `[subset]` or `[deviating]`."""
    word = standing(result, benchmark).removeprefix("measured").removeprefix("-")
    return f"[{word}]" if word else "benchmark"


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> str:
    """An aligned table for the terminal, empty without rows; columns without any text are left out.

    `right` has the headings of the columns that are aligned to the right.
    """
    kept = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    if not kept:
        return ""
    text = tabulate(
        [[row[column] for column in kept] for row in rows],
        [headings[column] for column in kept],
        tablefmt="simple",
        colalign=["right" if headings[column] in right else "left" for column in kept],
        disable_numparse=True,
        preserve_whitespace=True,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def duration(seconds: float) -> str:
    """A time such as `48 s`, `7 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _lines(task: str, result: Result) -> list[tuple[str, ...]]:
    """One line per metric; the first line of each benchmark shows what its metrics are worth."""
    facts = (task, duration(result.wall_time_s), f"{result.peak_memory_bytes / 2**30:.1f} GiB")
    lines: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for name, benchmark in _shown_metrics(task, result):
        metric = result.metrics[name]
        first, time, memory = ("", "", "") if lines else facts
        word = "" if benchmark in seen else standing_in_words(result, benchmark)
        lines.append((first, name, f"{metric.value:.1f}", _interval(metric), word, time, memory))
        seen.add(benchmark)
    return lines


def _shown_metrics(task: str, result: Result) -> list[tuple[str, str]]:
    """Name and benchmark (its key) of the metrics that the tables show; of all metrics for a task whose columns depend on them."""
    benchmarks = [one for one in TASKS[task].benchmarks if one.protocol == result.protocol.name]
    columns = [(column.metric, one.key) for one in benchmarks for column in one.columns if column.metric in result.metrics]
    if columns:
        return columns
    shown, current = [], ""
    for name in result.metrics:
        # What no column shows, such as the linear probe at further learning rates, follows the metric that it belongs to.
        current = next((one.key for one in benchmarks if re.fullmatch(one.metric_pattern, name)), current)
        shown.append((name, current))
    return shown


def _interval(metric: Metric) -> str:
    return " to ".join(f"{end:.1f}" for end in metric.interval_95)


def _shortened(names: Sequence[str]) -> str:
    hidden = len(names) - _DEVIATIONS_SHOWN
    return ", ".join(names[:_DEVIATIONS_SHOWN]) + (f" and {hidden} more" if hidden > 0 else "")
