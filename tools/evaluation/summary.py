"""What `tools/eval_all.py` prints at its end."""

from collections.abc import Sequence
from pathlib import Path

from backbones.formats.base import abbreviate
from eval.result import RESULT_FILE, Result, read_result


def print_summary(folder: Path, tasks: Sequence[str], failed: Sequence[str], tables: Sequence[Path]) -> None:
    """Print the figures of the tasks that finished, and where the files lie.

    Args:
        folder: The run's.
        tasks: In their order.
        failed: Which of them failed.
        tables: What was written.
    """
    for task in tasks:
        path = folder / task / RESULT_FILE
        if task in failed:
            # A result that lies there is of other inputs.
            print(f"{task:>13}: failed, see above; another --name keeps runs apart")  # noqa: T201 - the command's own output
            continue
        result = read_result(path)
        figures = "  ".join(f"{name} {metric.value:.1f}" for name, metric in result.metrics.items())
        remark = "" if result.is_benchmark else f"  [{_why_not_a_benchmark(result)}]"
        print(f"{task:>13}: {figures}{remark}")  # noqa: T201
        print(f"{'':>15}{result.wall_time_s:.0f} s, {result.peak_memory_bytes / 2**30:.1f} GiB, {path}")  # noqa: T201
    for table in tables:
        print(f"{'table':>13}: {table}")  # noqa: T201


def _why_not_a_benchmark(result: Result) -> str:
    differing = result.protocol.deviations
    settings = f"; differs from the published protocol in {abbreviate(differing, 3)}" if differing else ""
    return f"{result.coverage} data, not a benchmark number{settings}"
