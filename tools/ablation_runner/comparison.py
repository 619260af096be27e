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
    def evaluation(self) -> str:
        return ", ".join(dict.fromkeys(standing_in_words(result, "davis") for result in self.results))

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
        mean, spread = ("" if value is None else f"{value:.1f}" for value in (compared.mean, compared.spread))
        # Several runs differ in their seed only.
        several = len(compared.runs) > 1
        run = f"{compared.runs[0].rpartition('-seed')[0]}-seed..." if several else "".join(compared.runs)
        published, count = compared.published.values[COLUMN], str(len(compared.runs) or "")
        pretraining = "departs, see below" if compared.departures else compared.pretraining
        lines.append((compared.row.name, run, published, mean, spread, count, compared.evaluation, pretraining))
    departing = {compared.row.recipe: compared.pretraining for compared in rows if compared.departures}
    remarks = "\n".join(f"{recipe} {text}" for recipe, text in departing.items())
    return f"{text_table(_HEADINGS, lines, _HEADINGS[2:6])}\n\n{remarks}".rstrip()


def comparison_csv(rows: Sequence[Compared]) -> str:
    """The comparison as CSV in full precision, with Unix line ends.

    Its columns are `row`; the descriptors of the published table; `published`; `measured`, the mean over seeds, `spread`, their
    standard deviation, and their number `seeds`; the names of the `runs`; `evaluation`, what the metric is worth; and `pretraining`,
    how it departs from the published one.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", *rows[0].published.descriptors, *_HEADINGS[2:6], "runs", *_HEADINGS[6:]])
    for compared in rows:
        numbers = ("" if value is None else repr(value) for value in (compared.mean, compared.spread))
        published, count = compared.published, len(compared.runs)
        cells = [compared.row.name, *published.descriptors.values(), published.values[COLUMN], *numbers, count]
        writer.writerow([*cells, " ".join(compared.runs), compared.evaluation, compared.pretraining])
    return stream.getvalue()
