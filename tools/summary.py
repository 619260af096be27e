"""What commands print at their end: the small table of a run, how long its tasks took, and where the files are."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from eval.findings import first_few
from eval.progress import duration
from eval.result import RESULT_FILE, read_result
from tables.headline import SEPARATOR
from tables.make import SUMMARY_PAGE

_DEVIATIONS_SHOWN = 3


def summary(folder: Path, statuses: Mapping[str, int], tables: Sequence[Path], left_out: Sequence[str] = ()) -> str:
    """The small table of the run, which comes first on the tables' page, the tasks that failed, and where the files are.

    Args:
        folder: The run's folder, which holds one for each task.
        statuses: Task -> its exit status, 0 if it succeeded.
        tables: The files of the tables made from the results.
        left_out: The tasks whose data is missing.
    """
    failed, earlier, differing, files = [], [], [], []
    for task, status in statuses.items():
        path = folder / task / RESULT_FILE
        if status:
            failed.append(f"{task}  failed with status {status}, see above; another --name keeps runs apart")
            # A result in the folder of a failed task was made from other inputs: a table with it is not shown as this command's.
            if path.is_file():
                earlier.append(task)
            continue
        result = read_result(path)
        if result.protocol.deviations:
            names = first_few(sorted(result.protocol.deviations), _DEVIATIONS_SHOWN)
            differing.append(f"{task}: differs from the published protocol in {names}")
        files.append((task, duration(result.wall_time_s), f"{result.peak_memory_bytes / 2**30:.1f} GiB", str(path)))
    lines = [f"{task}: left out, since its data is missing" for task in left_out] + failed
    if earlier:
        lines.append(f"{SUMMARY_PAGE} is not shown here, since it holds an earlier result of {', '.join(earlier)}")
    small_table = ""
    for page in tables:
        if page.name == SUMMARY_PAGE and files and not earlier:
            small_table = page.read_text(encoding="utf-8").partition(SEPARATOR)[0].rstrip()
    files += [(label, "", "", path) for label, path in table_files(tables)]
    listing = text_table(("what", "time", "memory", "file"), files, ("time", "memory"))
    return "\n\n".join(part for part in (small_table, "\n".join(lines + differing), listing) if part)


def table_files(tables: Sequence[Path]) -> list[tuple[str, str]]:
    """Label and path of each page; the other files are only counted."""
    pages = (".md", ".html")
    files = [(path.stem, str(path)) for path in tables if path.suffix in pages]
    others = [path for path in tables if path.suffix not in pages]
    if others:
        suffixes = ", ".join(sorted({path.suffix for path in others}))
        files.append(("more", f"{len(others)} files ({suffixes}) in {others[0].parent}"))
    return files


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
