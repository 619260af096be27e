"""The summary that commands print at their end: the metrics, what they are worth, and where the files are."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from eval.result import RESULT_FILE, Result, read_result
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


def summary(folder: Path, statuses: Mapping[str, int], tables: Sequence[Path]) -> str:
    """The metrics of the tasks that finished, the tasks that failed, and where the files are.

    Args:
        folder: The run's folder, which holds one for each task.
        statuses: Task -> its exit status, 0 if it succeeded.
        tables: The files of the tables made from the results.
    """
    paths = {task: folder / task / RESULT_FILE for task in statuses}
    # A result in the folder of a failed task was made from other inputs: it is not read.
    results = {task: read_result(paths[task]) for task, status in statuses.items() if not status}
    lines = [line for task, result in results.items() for line in _lines(task, result)]
    failed = [
        f"{task}  failed with status {status}, see above; another --name keeps runs apart"
        for task, status in statuses.items()
        if status
    ]
    remarks = [remark for word, remark in _REMARKS.items() if any(f"[{word}]" in line for line in lines)]
    remarks += [
        f"{task}: differs from the published protocol in {_shortened(sorted(result.protocol.deviations))}"
        for task, result in results.items()
        if result.protocol.deviations
    ]
    files = [(task, str(paths[task])) for task in results]
    parts = [
        text_table(_HEADINGS, lines, _RIGHT),
        "\n".join(failed),
        "\n".join(remarks),
        text_table(("what", "file"), [*files, *table_files(tables)]),
    ]
    return "\n\n".join(part for part in parts if part)


def table_files(tables: Sequence[Path]) -> list[tuple[str, str]]:
    """Label and path of each page; the other files are only counted."""
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
    """An aligned table for the terminal, without empty columns; empty if there are no rows.

    Columns whose heading is in `right` are aligned to the right.
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
    """A line for each metric; the first line of each benchmark says what its metrics are worth."""
    facts = (task, duration(result.wall_time_s), f"{result.peak_memory_bytes / 2**30:.1f} GiB")
    lines: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for name, benchmark in _shown_metrics(task, result):
        metric = result.metrics[name]
        first, time, memory = ("", "", "") if lines else facts
        word = "" if benchmark in seen else standing_in_words(result, benchmark)
        interval = " to ".join(f"{end:.1f}" for end in metric.interval_95)
        value = f"{metric.value:.1f}" if metric.unit == "percent" else f"{metric.value:.3f}"
        lines.append((first, name, value, interval, word, time, memory))
        seen.add(benchmark)
    return lines


def _shown_metrics(task: str, result: Result) -> list[tuple[str, str]]:
    """Name and benchmark (its key) of the metrics in the tables, or of all metrics if the columns depend on the result."""
    benchmarks = [benchmark for benchmark in TASKS[task].benchmarks if benchmark.protocol == result.protocol.name]
    columns = [(column.metric, column.benchmark) for benchmark in benchmarks for column in benchmark.columns]
    if columns:
        return [(metric, benchmark) for metric, benchmark in columns if metric in result.metrics]
    shown, current = [], ""
    for name in result.metrics:
        # A metric without a column, such as that of the linear probe at another learning rate, follows the one it belongs to.
        current = next((benchmark.key for benchmark in benchmarks if re.fullmatch(benchmark.metric_pattern, name)), current)
        shown.append((name, current))
    return shown


def _shortened(names: Sequence[str]) -> str:
    hidden = len(names) - _DEVIATIONS_SHOWN
    return ", ".join(names[:_DEVIATIONS_SHOWN]) + (f" and {hidden} more" if hidden > 0 else "")
