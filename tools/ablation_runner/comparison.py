"""The published table with what was measured beside it, row by row."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.result import Result, read_result
from tables.reference import PublishedRow
from tools.ablation_runner.job import is_finished
from tools.ablation_runner.plan import Job
from tools.ablation_runner.rows import AblationRow
from tools.evaluation.summary import standing
from tools.text_table import text_table

METRIC = "J&F-Mean"
COLUMN = "davis_jf_mean"
_HEADINGS = ("row", "run", "published", "measured", "spread", "seeds", "evaluation", "pretraining")
_RIGHT = ("published", "measured", "spread", "seeds")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A row of the ablation."""

    row: AblationRow
    """Which."""
    published: PublishedRow
    """As the paper prints it."""
    jobs: list[Job]
    """Its finished runs, one per seed."""
    results: list[Result]
    """Theirs."""

    @property
    def values(self) -> list[float]:
        """J&F in percent, one per seed."""
        return [result.metrics[METRIC].value for result in self.results]

    @property
    def evaluation(self) -> str:
        """What the evaluation is worth."""
        words = dict.fromkeys(standing(result) for result in self.results)
        return ", ".join(word if word == "benchmark" else f"[{word}]" for word in words)

    @property
    def pretraining(self) -> str:
        """How the pretraining departs from the published one."""
        if not self.jobs:
            return "not measured"
        changes = self.jobs[0].departures
        return "departs: " + "; ".join(f"{name} {change}" for name, change in changes.items()) if changes else "the recipe's"


def compare(rows: Sequence[AblationRow], published: list[PublishedRow], jobs: Sequence[Job]) -> list[Compared]:
    """Every row with its finished runs.

    Args:
        rows: In the paper's order.
        published: The reference table.
        jobs: Of the rows; unfinished ones count as not measured.

    Raises:
        ValueError: If a result is damaged.
    """
    results: Mapping[str, Result] = {
        job.name: read_result(job.options.result) for job in jobs if is_finished(job.options, job.images)
    }
    compared = []
    for row in rows:
        own = [job for job in jobs if job.options.recipe == row.recipe and job.name in results]
        compared.append(
            Compared(row=row, published=row.find_published(published), jobs=own, results=[results[job.name] for job in own])
        )
    return compared


def comparison_text(rows: Sequence[Compared]) -> str:
    """For the terminal: rounded as the paper does, the departures listed once below."""
    lines = []
    for one in rows:
        values = one.values
        spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        mean = f"{statistics.mean(values):.1f}" if values else ""
        # Several runs differ in their seed only.
        names = {job.name.rpartition("-seed")[0] + "-seed..." if len(one.jobs) > 1 else job.name for job in one.jobs}
        runs = "".join(names)
        count = str(len(values)) if values else ""
        pretraining = "departs, see below" if one.jobs and one.jobs[0].departures else one.pretraining
        lines.append((one.row.name, runs, one.published.values[COLUMN], mean, spread, count, one.evaluation, pretraining))
    table = text_table(_HEADINGS, lines, _RIGHT)
    departing = {one.row.recipe: one.pretraining for one in rows if one.jobs and one.jobs[0].departures}
    remarks = "\n".join(f"{recipe} {text}" for recipe, text in departing.items())
    return f"{table}\n\n{remarks}".rstrip()


def comparison_csv(rows: Sequence[Compared]) -> str:
    """The whole file, in full precision, with Unix line ends.

    Columns: `row`; the descriptors of the published table; `published`; `measured`, the mean over seeds, and `spread`, their standard
    deviation; `seeds`, how many; `runs`, their names; what the `evaluation` is worth; how the `pretraining` departs.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    descriptors = list(rows[0].published.descriptors) if rows else []
    writer.writerow(["row", *descriptors, *_HEADINGS[2:6], "runs", *_HEADINGS[6:]])
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
                " ".join(job.name for job in one.jobs),
                one.evaluation,
                one.pretraining,
            ]
        )
    return stream.getvalue()
