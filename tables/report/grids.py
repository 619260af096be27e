"""The tables as the page shows them: every figure with its standing and the place of its provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tables.comparison import Comparison, Mark, printed
from tables.layout import Layout
from tables.render_markdown import signed
from tables.report.records import VERDICTS
from tables.rows import Cell, Row, Status, Table

_MARKS: dict[Status, str] = {"measured-deviating": "D", "measured-subset": "P", "measured-sample": "S"}
"""Letters beside figures that are no benchmark numbers; the page explains them."""
NOT_MEASURED, NO_VALUE = "–", "n/a"


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """A figure or a descriptor."""

    text: str
    """As shown."""
    sort: str = ""
    """What the column is sorted by; empty for none, which stays last."""
    status: Status | None = None
    """Of a figure."""
    mark: str = ""
    """Letter that says why it is no benchmark number."""
    rank: str = ""
    """`best` or `second` of what competes in the column."""
    spread: str = ""
    """Standard deviation over seeds."""
    interval: str = ""
    """95 % interval over resampled items."""
    delta: str = ""
    """Difference from the baseline, with a star where it is significant."""
    incomparable: str = ""
    """Why a benchmark number does not compete."""
    anchor: str = ""
    """Of its provenance."""
    note: str = ""
    """The number that leads there in print."""
    exact: str = ""
    """All digits."""
    column: str = ""
    """Heading of its column."""
    verdict: str = ""
    """What it is worth, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class GridColumn:
    """A heading."""

    heading: str
    """Text."""
    numeric: bool
    """Whether it is sorted by number."""


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """A line."""

    measured: bool
    """Whether it was measured here."""
    cells: list[GridCell]
    """The method, then one for every other column."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a row without a result of its own is from: a publication, or several seeds."""

    anchor: str
    """On the page."""
    title: str
    """Of the row."""
    text: str
    """Reference, or what was averaged."""
    seeds: list[tuple[str, str, str]]
    """Name, anchor and figures of each seed; empty for a publication."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table."""

    layout: Layout
    """Title and caption."""
    spans: list[tuple[str, int]]
    """Headings above the columns and how many they span."""
    columns: list[GridColumn]
    """From the left."""
    rows: list[GridRow]
    """As in the CSV file; the single seeds stand in the origin of their mean."""
    origins: list[Origin]
    """Of published rows and means."""

    @property
    def anchor(self) -> str:
        """Of its section."""
        return f"table-{self.layout.name}"


def make_grid(table: Table, comparison: Comparison, numbers: Mapping[str, int]) -> Grid:
    """A table with links.

    Args:
        table: Rows with their cells.
        comparison: Their marks.
        numbers: Path of a result -> its number on the page.
    """
    layout = table.layout
    others = [name for name in layout.descriptors if name != "method"]
    anchors = [_origin_anchor(layout, number, row) for number, row in enumerate(table.rows)]
    texts = [[row.descriptors[name] for row in table.rows if row.descriptors[name]] for name in others]
    spans = [
        (title, len(list(columns))) for title, columns in groupby(layout.columns, key=lambda column: column.benchmark.title)
    ]
    return Grid(
        layout=layout,
        spans=[("", len(others) + 2), *spans],
        columns=[
            GridColumn(heading="method", numeric=False),
            GridColumn(heading="figures", numeric=False),
            *(
                GridColumn(heading=name.replace("_", " "), numeric=_are_numbers(known))
                for name, known in zip(others, texts, strict=True)
            ),
            *(GridColumn(heading=column.heading, numeric=True) for column in layout.columns),
        ],
        rows=[
            _row(others, row, _figures(layout, number, row, comparison, anchor, numbers))
            for number, (row, anchor) in enumerate(zip(table.rows, anchors, strict=True))
        ],
        origins=[_origin(row, anchor, numbers) for row, anchor in zip(table.rows, anchors, strict=True) if anchor],
    )


def _origin_anchor(layout: Layout, number: int, row: Row) -> str:
    """Empty for a row whose figures are single results."""
    prefix = {"published": "p", "mean": "s"}.get(row.kind)
    return f"{prefix}-{layout.name}-{number}" if prefix else ""


def _row(others: Sequence[str], row: Row, figures: list[GridCell]) -> GridRow:
    kind = {"published": "published", "mean": f"mean of {len(row.seeds)} seeds"}.get(row.kind, "measured")
    words = [row.descriptors["method"], kind, *(row.descriptors[name] for name in others)]
    return GridRow(
        measured=row.kind != "published",
        cells=[*(GridCell(text=word or NOT_MEASURED, sort=word) for word in words), *figures],
    )


def _figures(
    layout: Layout, number: int, row: Row, comparison: Comparison, anchor: str, numbers: Mapping[str, int]
) -> list[GridCell]:
    cells = [(column.key, row.cells.get(column.key)) for column in layout.columns]
    return [
        _figure(cell, comparison.mark(number, key), anchor, numbers) if cell else GridCell(text=NOT_MEASURED)
        for key, cell in cells
    ]


def _figure(cell: Cell, mark: Mark, row_anchor: str, numbers: Mapping[str, int]) -> GridCell:
    paths = [one.path for one in cell.measurements]
    star = "*" if mark.interval is not None and mark.interval.significant else ""
    return GridCell(
        text=_rounded(cell),
        sort=cell.text,
        status=cell.status,
        mark=_MARKS.get(cell.status, ""),
        rank=mark.rank or "",
        spread="" if cell.spread is None else f"±{printed(cell.spread)}",
        interval="" if cell.interval_95 is None else "–".join(map(printed, cell.interval_95)),
        delta="" if mark.delta is None else f"({signed(mark.delta)}{star})",
        incomparable=mark.incomparable,
        anchor=f"r{numbers[paths[0]]}" if len(paths) == 1 else row_anchor,
        note=", ".join(str(numbers[path]) for path in paths),
        exact=_exact(cell),
        column=f"{cell.column.benchmark.title} {cell.column.heading}",
        verdict=VERDICTS[cell.status] + (f"; does not compete: {mark.incomparable}" if mark.incomparable else ""),
    )


def _rounded(cell: Cell) -> str:
    if cell.value is None:
        return NO_VALUE
    return printed(cell.value) if cell.measurements else cell.text


def _exact(cell: Cell) -> str:
    text = cell.text or "no value"
    if cell.spread is not None:
        text += f", standard deviation {cell.spread!r} over {len(cell.measurements)} seeds"
    if cell.interval_95 is not None:
        text += f", 95 % interval {cell.interval_95[0]:.2f} to {cell.interval_95[1]:.2f}"
    return text


def _origin(row: Row, anchor: str, numbers: Mapping[str, int]) -> Origin:
    title = ", ".join(text for text in row.descriptors.values() if text)
    if row.kind == "published":
        return Origin(anchor=anchor, title=title, text=row.source + (f". Remark: {row.note}" if row.note else ""), seeds=[])
    seeds = []
    for seed in row.seeds:
        cells = list(seed.cells.values())
        paths = dict.fromkeys(one.path for cell in cells for one in cell.measurements)
        figures = ", ".join(f"{cell.column.heading} {_rounded(cell)}" for cell in cells)
        seeds += [(seed.descriptors["method"], f"r{numbers[path]}", figures) for path in paths]
    return Origin(
        anchor=anchor,
        title=title,
        text=f"Mean over {len(row.seeds)} seeds of one recipe, with their standard deviation",
        seeds=seeds,
    )


def _are_numbers(texts: Sequence[str]) -> bool:
    """Whether a column can be sorted by number."""
    try:
        return bool([float(text) for text in texts])
    except ValueError:
        return False
