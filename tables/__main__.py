"""`python -m tables --runs DIR --output DIR` regenerates every table from the result files.

`python -m tables check` says whether results may stand in one table, with every difference that makes them incomparable.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.cli import USER_ERROR, parse, run_command
from tables.collect import Evaluated, Measurement, Slot, collect
from tables.comparability import FIELDS, Difference, benchmark_differences, row_differences
from tables.layout import LAYOUTS
from tables.make import TablesConfig, make_tables
from tables.rows import slot_of


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Name every difference that makes results incomparable, one per line; the exit status is 2 if there is any."""

    runs: Path  # Folder of results; every result.json below it is read.
    names: list[str] = field(default_factory=list)  # Only the runs of these names; by default all.
    allow: list[str] = field(default_factory=list)
    """Differences to accept: fields as this command prints them, such as `heads`, `settings.taps` or all of `dataset.test`."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.allow if name.partition(".")[0] not in FIELDS]:
            raise ValueError(
                f"--allow {' '.join(unknown)}: fields are {FIELDS[0]} and what begins with {', '.join(FIELDS[1:])}"
            )


def main(argv: Sequence[str]) -> int:
    """Write the tables, or compare the results."""
    if argv[:1] == ["check"]:
        return _check(parse(CheckConfig, argv[1:], "python -m tables check"))
    description = f"{TablesConfig.__doc__} `python -m tables check --help`: say which results may not be compared."
    for path in make_tables(parse(TablesConfig, argv, "python -m tables", description)):
        print(path)  # noqa: T201 - the command's own output
    return 0


def _check(config: CheckConfig) -> int:
    """Compare the results of every benchmark with that of the first row, and the results within every row.

    Published rows are left out: the tables mark the results that are not comparable with them.
    """
    rows = _chosen(collect(config.runs), config.names)
    lines = [line for row in rows for line in _within(row, config.allow)]
    first: dict[Slot, Measurement] = {}
    for row in rows:
        for slot, measurements in row.slots.items():
            reference = first.setdefault(slot, measurements[0])
            # The first result stands for all seeds of a recipe: `collect` has compared them.
            found = benchmark_differences(reference.result, measurements[0].result, slot.benchmark, config.allow)
            lines += [_line(str(slot), reference, measurements[0], difference) for difference in found]
    num_results = sum(len(row.measurements) for row in rows)
    for line in lines or [f"{num_results} results; nothing keeps them from being compared"]:
        print(line)  # noqa: T201 - the command's own output
    return USER_ERROR if lines else 0


def _chosen(rows: list[Evaluated], names: list[str]) -> list[Evaluated]:
    known = sorted({name for row in rows for name in row.run_names})
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--names {' '.join(unknown)}: no run has this name; there are {', '.join(known) or 'none'}")
    return [row for row in rows if not names or set(names) & set(row.run_names)]


def _within(row: Evaluated, allow: list[str]) -> Iterator[str]:
    """The differences between results that share a row of a table; those with a row for each data set share none."""
    shared = {slot_of(column, "") for layout in LAYOUTS for column in layout.columns}
    results = list({found[0].path: found[0] for slot, found in row.slots.items() if slot in shared}.values())
    for other in results[1:]:
        for difference in row_differences(results[0].result, other.result, allow):
            yield _line(f"row of {row.name}", results[0], other, difference)


def _line(place: str, first: Measurement, second: Measurement, difference: Difference) -> str:
    return f"{place}: {second.path} has {difference.field} {difference.second}, {first.path} has {difference.first}"


if __name__ == "__main__":
    run_command(main)
