"""The published table with the measured values beside it, row by row."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from eval.result import Result
from eval.tasks import BENCHMARKS
from tables.reference import PublishedRow
from tables.render import IN_FULL_ONLY, csv_file
from tables.rows import printed, standing
from tools.ablation_runner.rows import AblationRow
from tools.summary import text_table

METRIC = "J&F-Mean"
COLUMN = "davis_jf_mean"
_PRINTED = partial(printed, column=next(column for column in BENCHMARKS["davis"].columns if column.key == COLUMN))

_HEADINGS = ("row", "run", "published", "measured", "spread", "seeds", "standing", "pretraining")


class Compared(NamedTuple):
    """A row of the ablation with its finished runs, one per seed."""

    row: AblationRow
    published: PublishedRow
    runs: list[str]  # names
    results: list[Result]
    departures: dict[str, str]  # How the pretraining departs from the published one.

    @property
    def mean(self) -> float | None:
        """Mean J&F over the seeds, in percent."""
        return statistics.mean(result.metrics[METRIC].value for result in self.results) if self.results else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of J&F over the seeds, in percent."""
        values = [result.metrics[METRIC].value for result in self.results]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def standing(self) -> str:
        """What the values are worth: `measured`, `deviating`, `subset` or `sample`."""
        return ", ".join(dict.fromkeys(standing(result, "davis").removeprefix("measured-") for result in self.results))

    @property
    def pretraining(self) -> str:
        if not self.runs:
            return "not measured"
        changes = "; ".join(f"{name} {change}" for name, change in self.departures.items())
        return f"departs: {changes}" if changes else "the recipe's"


def comparison_text(rows: Sequence[Compared]) -> str:
    """The comparison for the terminal, rounded as in the paper; the departures stand below it."""
    lines = []
    for compared in rows:
        mean, spread = ("" if value is None else _PRINTED(value) for value in (compared.mean, compared.spread))
        # Several runs differ in their seed only.
        several = len(compared.runs) > 1
        run = f"{compared.runs[0].rpartition('-seed')[0]}-seed..." if several else "".join(compared.runs)
        published, count = compared.published.values[COLUMN], str(len(compared.runs) or "")
        pretraining = "departs, see below" if compared.departures else compared.pretraining
        lines.append((compared.row.name, run, published, mean, spread, count, compared.standing, pretraining))
    departing = {compared.row.recipe: compared.pretraining for compared in rows if compared.departures}
    remarks = "\n".join(f"{recipe} {text}" for recipe, text in departing.items())
    return f"{text_table(_HEADINGS, lines, _HEADINGS[2:6])}\n\n{remarks}".rstrip()


def comparison_csv(rows: Sequence[Compared]) -> str:
    """The comparison as the paper prints it: percent to one decimal, and whether the pretraining departs from the published one."""
    descriptors = [name for name in rows[0].published.descriptors if name not in IN_FULL_ONLY]
    records = [
        _record(compared, _PRINTED) | {"pretraining": "departs" if compared.departures else compared.pretraining}
        for compared in rows
    ]
    return csv_file(["row", *descriptors, *_HEADINGS[2:]], records)


def comparison_full_csv(rows: Sequence[Compared]) -> str:
    """The comparison with all digits, the names of the runs, and how the pretraining departs from the published one."""
    header = ["row", *rows[0].published.descriptors, *_HEADINGS[2:6], "runs", *_HEADINGS[6:]]
    return csv_file(header, [_record(compared, repr) for compared in rows])


def _record(compared: Compared, text_of: Callable[[float], str]) -> dict[str, str]:
    measured, spread = ("" if value is None else text_of(value) for value in (compared.mean, compared.spread))
    return {
        "row": compared.row.name,
        **compared.published.descriptors,
        "published": compared.published.values[COLUMN],
        "measured": measured,
        "spread": spread,
        "seeds": str(len(compared.runs) or ""),
        "runs": " ".join(compared.runs),
        "standing": compared.standing,
        "pretraining": compared.pretraining,
    }
