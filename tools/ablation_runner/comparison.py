"""The published table with the measured values beside it, row by row."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from eval.result import Result
from tables.reference import PublishedRow
from tools.ablation_runner.rows import AblationRow
from tools.summary import standing_in_words, text_table

METRIC = "J&F-Mean"
COLUMN = "davis_jf_mean"

_HEADINGS = ("row", "run", "published", "measured", "spread", "seeds", "evaluation", "pretraining")


class Compared(NamedTuple):
    """A row of the ablation with its finished runs, one per seed."""

    row: AblationRow
    published: PublishedRow
    runs: list[str]  # names
    results: list[Result]
    departures: dict[str, str]
    """Where their pretraining departs from the published one."""

    @property
    def values(self) -> list[float]:
        """J&F in percent, one per seed."""
        return [result.metrics[METRIC].value for result in self.results]

    @property
    def evaluation(self) -> str:
        return ", ".join(dict.fromkeys(standing_in_words(result, "davis") for result in self.results))

    @property
    def pretraining(self) -> str:
        if not self.runs:
            return "not measured"
        changes = "; ".join(f"{name} {change}" for name, change in self.departures.items())
        return f"departs: {changes}" if changes else "the recipe's"


def comparison_text(rows: Sequence[Compared]) -> str:
    """The comparison for the terminal: rounded as in the paper, with the departures listed once below it."""
    lines = []
    for one in rows:
        values = one.values
        mean = f"{statistics.mean(values):.1f}" if values else ""
        spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        # Several runs differ in their seed only.
        run = f"{one.runs[0].rpartition('-seed')[0]}-seed..." if len(values) > 1 else "".join(one.runs)
        pretraining = "departs, see below" if one.departures else one.pretraining
        count = str(len(values)) if values else ""
        lines.append((one.row.name, run, one.published.values[COLUMN], mean, spread, count, one.evaluation, pretraining))
    departing = {one.row.recipe: one.pretraining for one in rows if one.departures}
    remarks = "\n".join(f"{recipe} {text}" for recipe, text in departing.items())
    return f"{text_table(_HEADINGS, lines, _HEADINGS[2:6])}\n\n{remarks}".rstrip()


def comparison_csv(rows: Sequence[Compared]) -> str:
    """The comparison as CSV in full precision, with Unix line ends.

    Columns: `row`; the descriptors of the published table; `published`; `measured`, the mean over seeds, and `spread`, their standard
    deviation; `seeds`, how many; `runs`, their names; what the `evaluation` is worth; how the `pretraining` departs.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", *rows[0].published.descriptors, *_HEADINGS[2:6], "runs", *_HEADINGS[6:]])
    for one in rows:
        values = one.values
        writer.writerow(
            [
                one.row.name,
                *one.published.descriptors.values(),
                one.published.values[COLUMN],
                repr(statistics.mean(values)) if values else "",
                repr(statistics.stdev(values)) if len(values) > 1 else "",
                len(values),
                " ".join(one.runs),
                one.evaluation,
                one.pretraining,
            ]
        )
    return stream.getvalue()
