"""What `tools/eval_all.py` prints at its end: a table of figures in plain text, and where the files lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.formats.base import abbreviate
from eval.result import RESULT_FILE, Metric, Result, read_result
from tables.layout import LAYOUTS
from tools.text_table import text_table

_HEADINGS = ("task", "figure", "value", "95 % interval", "standing", "time", "memory")
_RIGHT = ("value", "time", "memory")
_REMARKS = {
    "sample": "[sample]: generated data, shortened runs; not a benchmark number",
    "subset": "[subset]: a part of the benchmark; not a benchmark number",
    "deviating": "[deviating]: not by the published protocol; not a benchmark number",
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A task that was run."""

    task: str
    """Its name."""
    folder: Path
    """Its output."""
    status: int
    """0 if it succeeded."""


def summary(ended: Sequence[Ended], tables: Sequence[Path]) -> str:
    """The figures of the tasks that finished, which failed, and where the files lie.

    Args:
        ended: In the order in which they ran.
        tables: What was written from the results.
    """
    # A result that lies in a failed task's folder is of other inputs: it is not read.
    results = {one.task: read_result(one.folder / RESULT_FILE) for one in ended if not one.status}
    lines: list[tuple[str, ...]] = []
    for one in ended:
        lines += _lines(one.task, results[one.task]) if one.task in results else [_failed(one)]
    standings = dict.fromkeys(standing(result) for result in results.values())
    remarks = [_REMARKS[name] for name in standings if name in _REMARKS]
    remarks += [
        f"{task}: differs from the published protocol in {abbreviate(result.protocol.deviations, 3)}"
        for task, result in results.items()
        if result.protocol.deviations
    ]
    files = [(task, str(next(one.folder for one in ended if one.task == task) / RESULT_FILE)) for task in results]
    files += table_files(tables)
    parts = [text_table(_HEADINGS, lines, _RIGHT), "\n".join(remarks), text_table(("what", "file"), files)]
    return "\n\n".join(part for part in parts if part)


def table_files(tables: Sequence[Path]) -> list[tuple[str, str]]:
    """The pages to read by name, the others by their number."""
    pages = {".md": "tables", ".html": "report"}
    files = [(pages[path.suffix], str(path)) for path in tables if path.suffix in pages]
    others = [path for path in tables if path.suffix not in pages]
    if others:
        suffixes = ", ".join(sorted({path.suffix for path in others}))
        files.append(("more", f"{len(others)} files ({suffixes}) in {others[0].parent}"))
    return files


def standing(result: Result) -> str:
    """What the figures are worth, in a word."""
    if result.is_benchmark:
        return "benchmark"
    return "deviating" if result.coverage == "full" else result.coverage


def duration(seconds: float) -> str:
    """Such as `48 s`, `7 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _lines(task: str, result: Result) -> list[tuple[str, ...]]:
    word = standing(result)
    facts = (
        word if word == "benchmark" else f"[{word}]",
        duration(result.wall_time_s),
        f"{result.peak_memory_bytes / 2**30:.1f} GiB",
    )
    lines: list[tuple[str, ...]] = []
    for position, name in enumerate(_shown_metrics(task, result)):
        metric = result.metrics[name]
        first = position == 0
        lines.append(
            (task if first else "", name, f"{metric.value:.1f}", _interval(metric), *(facts if first else ("", "", "")))
        )
    return lines


def _shown_metrics(task: str, result: Result) -> list[str]:
    """Those that the tables show; all of a task that no table shows."""
    columns = dict.fromkeys(column.metric for layout in LAYOUTS for column in layout.columns if column.task == task)
    return [name for name in columns if name in result.metrics] or list(result.metrics)


def _interval(metric: Metric) -> str:
    return " to ".join(f"{end:.1f}" for end in metric.interval_95)


def _failed(one: Ended) -> tuple[str, ...]:
    return one.task, f"failed with status {one.status}, see above; another --name keeps runs apart"
