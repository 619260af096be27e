"""The published table with the measured values beside it, row by row."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from eval.result import Result
from eval.tasks import BENCHMARKS
from tables.render import IN_FULL_ONLY, csv_file
from tables.rows import Row, printed, standing
from tools.summary import text_table

METRIC = "J&F-Mean"
COLUMN = "davis_jf_mean"
_PRINTED = partial(printed, column=next(column for column in BENCHMARKS["davis"].columns if column.key == COLUMN))

_HEADINGS = ("row", "run", "published", "measured", "spread", "seeds", "standing", "pretraining")


class Compared(NamedTuple):
    """A row of the ablation with its finished runs, one per seed."""

    name: str
    recipe: str
    published: Row
    results: dict[str, Result]  # by the names of the runs
    departures: list[str]  # where the pretraining departs from the published one


def comparison_text(rows: Sequence[Compared]) -> str:
    """The comparison for the terminal, rounded as in the paper; the departures stand below it."""
    lines = []
    for compared in rows:
        record = _record(compared, _PRINTED, "departs, see below")
        if len(compared.results) > 1:  # which differ in their seed only
            record["run"] = f"{next(iter(compared.results)).rpartition('-seed')[0]}-seed..."
        lines.append([record[heading] for heading in _HEADINGS])
    departing = {compared.recipe: "; ".join(compared.departures) for compared in rows if compared.departures}
    remarks = "\n".join(f"{recipe} departs: {changes}" for recipe, changes in departing.items())
    return f"{text_table(_HEADINGS, lines, _HEADINGS[2:6])}\n\n{remarks}".rstrip()


def comparison_csv(rows: Sequence[Compared]) -> str:
    """The comparison as the paper prints it: percent to one decimal, and whether the pretraining departs from the published one."""
    descriptors = [name for name in rows[0].published.descriptors if name not in IN_FULL_ONLY]
    return csv_file(["row", *descriptors, *_HEADINGS[2:]], [_record(compared, _PRINTED, "departs") for compared in rows])


def comparison_full_csv(rows: Sequence[Compared]) -> str:
    """The comparison with all digits, the names of the runs, and how the pretraining departs from the published one."""
    header = ["row", *rows[0].published.descriptors, *_HEADINGS[2:6], "runs", *_HEADINGS[6:]]
    return csv_file(header, [_record(compared, repr, f"departs: {'; '.join(compared.departures)}") for compared in rows])


def _record(compared: Compared, text_of: Callable[[float], str], departs: str) -> dict[str, str]:
    """The cells of a row: `text_of` writes its figures, and `departs` stands for a pretraining that departs from the published one.

    Measured are the mean of J&F over the seeds, in percent, and its standard deviation.
    """
    results = compared.results.values()
    values = [result.metrics[METRIC].value for result in results]
    runs = " ".join(compared.results)
    return {
        "row": compared.name,
        **compared.published.descriptors,
        "run": runs,
        "published": compared.published.cells[COLUMN].text,
        "measured": text_of(statistics.mean(values)) if values else "",
        "spread": text_of(statistics.stdev(values)) if len(values) > 1 else "",
        "seeds": str(len(values) or ""),
        "runs": runs,
        "standing": ", ".join(dict.fromkeys(standing(result, "davis").removeprefix("measured-") for result in results)),
        "pretraining": (departs if compared.departures else "the recipe's") if values else "not measured",
    }
