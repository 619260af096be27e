"""The small table that answers first: a run beside the published rows of the same backbone, by the metrics that papers quote.

It is the same on the page `summary.md`, at the end of `eval_all.sh` and at the top of the report.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from eval.registry import Column
from eval.tasks import BENCHMARKS
from tables.collect import Evaluated, Slot
from tables.compare import FEWEST_ITEMS
from tables.layout import COMPONENTS
from tables.render import NOT_RUN, code, plain_cell, rounded, with_spread
from tables.rows import BENCHMARK_NUMBERS, VERDICTS, Cell, Interval, Row, Table, in_words, signed, slot_of, standing_word

SEPARATOR = "\n---\n"  # between the runs on the page
QUOTED_KNN = "20-NN top-1"
"""The k-NN metric that papers quote."""

Test = Callable[[Cell, float], Interval | None]
"""The interval of a measured value minus a published one, over the test items; None if there are no items, or too few."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The small table of one run. Cells are text without markup; the run's own row comes first."""

    name: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]
    remarks: list[str]


_Place = tuple[Slot, str]  # What a column of the small table is about: where the figure comes from, and the metric.


def _heading(slot: Slot, column: Column) -> str:
    if column.dataset:
        return column.heading
    benchmark = BENCHMARKS[slot.benchmark]
    # The metrics of classification name their protocol.
    title = benchmark.title if benchmark.columns or not slot.dataset else ""
    # A table of several protocols names the protocol in its headings, which the title does here.
    heading = next((own.heading for own in benchmark.columns if own.key == column.key), column.heading)
    return f"{', '.join(filter(None, (title, slot.dataset)))} {heading}"


def make_headlines(tables: Sequence[Table], evaluated: Sequence[Evaluated], first: str, test: Test) -> list[Headline]:
    """One for each row of results: that of the run `first`, then the others by name.

    The first one alone is tested, since that takes a minute for a result on COCO.
    """
    ordered = sorted(evaluated, key=lambda recipe: first not in recipe.run_names)
    return [_headline(tables, recipe, test if recipe is ordered[0] else None) for recipe in ordered]


def render_headlines(headlines: Sequence[Headline]) -> str:
    """The page, whose tables can be read as text, too."""
    if not headlines:
        return "There are no results yet; `tables.md` has the published rows.\n"
    return SEPARATOR.join(_markdown(headline) for headline in headlines)


def _markdown(headline: Headline) -> str:
    # The values and the standing are ours, and have brackets of their own.
    own, *others = [(plain_cell(name), *values, plain_cell(data), standing) for name, *values, data, standing in headline.lines]
    sides = ["left", *["right"] * (len(headline.headings) - 3), "left", "left"]
    lines = [(f"**{code(headline.name)}**", *own[1:]), *others]
    grid = tabulate(lines, [*map(plain_cell, headline.headings)], tablefmt="pipe", colalign=sides, disable_numparse=True)
    return "\n".join([grid, *(f"\n{remark}" for remark in headline.remarks)]) + "\n"


def _headline(tables: Sequence[Table], recipe: Evaluated, test: Test | None) -> Headline:
    own: dict[_Place, Cell] = {}
    published: dict[tuple[str, str], dict[tuple[Slot, str], Cell]] = {}
    data = ""
    for table in tables:
        for row in table.rows:
            if row.evaluated is recipe:
                for place, cell in _quoted(table, row).items():
                    own.setdefault(place, cell)  # of two tables with a figure, the first has published ones
                data = row.descriptors["pretraining_data"]
            # The rows of this table are variants of one method, of which another has the one that is published as the method.
            elif row.evaluated is None and row.descriptors["backbone"] == recipe.architecture and table.layout != COMPONENTS:
                dataset = row.descriptors.get("dataset", "")
                cells_of_row = {(slot_of(cell.column, dataset), key): cell for key, cell in row.cells.items()}
                published.setdefault((_label(row), row.descriptors["pretraining_data"]), {}).update(cells_of_row)
    lines = [(recipe.name, *map(_own_value, own.values()), data or NOT_RUN, in_words(own.values(), standing_word))]
    for (label, pretraining), cells in published.items():
        found = [cells.get((slot, cell.column.key)) for (slot, _), cell in own.items()]
        if any(found):
            pairs = zip(own.values(), found, strict=True)
            values = [_published_value(mine, cell, test) if cell else NOT_RUN for mine, cell in pairs]
            lines.append((label, *values, pretraining or NOT_RUN, "published"))
    places = (_heading(slot, cell.column) for (slot, _), cell in own.items())
    headings = (recipe.architecture, *places, "pretraining data", "standing")
    return Headline(name=recipe.name, headings=headings, lines=lines, remarks=list(_remarks(own, lines)))


def _quoted(table: Table, row: Row) -> dict[_Place, Cell]:
    """The values of a row that papers quote: those that the report's charts are about, or the first of each benchmark."""
    found: dict[_Place, Cell] = {}
    for key in dict.fromkeys(column.benchmark for column in table.layout.columns):
        columns = [column for column in table.layout.columns if column.benchmark == key and column.key in row.cells]
        names = {QUOTED_KNN, *(chart.overall for chart in BENCHMARKS[key].charts)}
        quoted = [column for column in columns if column.metric in names] or columns[:1]
        for column in quoted:
            found[slot_of(column, row.descriptors.get("dataset", "")), column.metric] = row.cells[column.key]
    return found


def _label(row: Row) -> str:
    """The method, and what else distinguishes rows of one method."""
    negatives = row.descriptors.get("patch_negatives", "")
    return row.descriptors["method"] + (f", patch negatives: {negatives}" if negatives else "")


def _own_value(cell: Cell) -> str:
    text = with_spread(cell)
    return text if cell.status in BENCHMARK_NUMBERS else f"[{text}]"


def _published_value(own: Cell, cell: Cell, test: Test | None) -> str:
    """The published value and, where both may be compared, what the run has more, and whether that is more than chance."""
    if own.value is None or cell.value is None or own.status not in BENCHMARK_NUMBERS:
        return rounded(cell)
    interval = test(own, cell.value) if test else None
    word = "" if interval is None else "*" if interval.significant else " n.s."
    return f"{rounded(cell)} ({signed(own.value - cell.value, own.column)}{word})"


def _remarks(own: Mapping[_Place, Cell], lines: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if len(lines) == 1:
        yield "There is no published row of this backbone with these benchmarks."
    if any("(" in text for line in lines[1:] for text in line[1:-2]):
        yield (
            "In parentheses: this run minus the published figure. *: significant, since the published figure lies outside the 95 % "
            "interval of this run's over the test items; n.s.: not significant; neither: not tested, since the result keeps fewer "
            f"than {FEWEST_ITEMS} single items, or another run is the first (`--first NAME`)."
        )
    if lower := [_heading(slot, cell.column) for (slot, _), cell in own.items() if not cell.column.higher_is_better]:
        yield f"Lower is better for {', '.join(lower)}."
    for status in dict.fromkeys(cell.status for cell in own.values() if cell.status not in BENCHMARK_NUMBERS):
        yield f"[In brackets] ({status.removeprefix('measured-')}): {VERDICTS[status]}; no difference is given."
