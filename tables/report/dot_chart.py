"""Figures per sequence or class of several backbones: a row per item, a dot per backbone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tables.layout import ADE20K, COCO, DAVIS, DAVIS_2016, KNN, LINEAR, UPERNET, Benchmark, neighbours_of
from tables.report.groups import Group
from tables.report.scale import Scale, round_scale
from tables.report.series import Series, make_series

_PERCENT = 100.0
_ROW_HEIGHT = 18
_ROWS_PER_PANEL = 20
_LABEL_WIDTH, _PLOT_WIDTH, _MARGIN, _AXIS_HEIGHT = 130, 190, 14, 24
_LONGEST_LABEL = 19
_FOLDED_FROM = 90
"""A chart of more rows is shown on demand."""
_MOST_ROWS, _ENDS = 200, 60
"""Of more rows, so many from either end are drawn."""
_USUAL_NEIGHBOURS = 20
"""The k of k-NN that papers quote."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A figure."""

    series: int
    """Index of its series."""
    x: float
    """Coordinate."""
    text: str
    """Rounded, as tables print it."""


@dataclass(frozen=True, kw_only=True)
class ChartRow:
    """An item."""

    label: str
    """Shortened to its place."""
    name: str
    """In full."""
    y: int
    """Coordinate of its middle."""
    dots: list[Dot]
    """One for each series that has a value."""
    words: str
    """All its figures, a line for each."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A column of rows with an axis."""

    rows: list[ChartRow]
    """From the top."""
    height: int
    """With the axis."""
    paths: dict[int, str]
    """Index of a series -> SVG path data of all its dots: a page with an element for every dot takes seconds to open."""


@dataclass(frozen=True, kw_only=True)
class DotChart:
    """A chart."""

    title: str
    """What it shows."""
    series: list[Series]
    """One per backbone."""
    panels: list[Panel]
    """Columns of rows."""
    scale: Scale
    """The axis of all panels."""
    without_value: list[str]
    """Items of which no backbone has a figure."""
    not_drawn: int
    """Items between the highest and the lowest ones, where there are too many to draw."""
    width: int = _LABEL_WIDTH + _PLOT_WIDTH + _MARGIN
    """Of a panel."""
    row_height: int = _ROW_HEIGHT
    """Of a row."""
    label_width: int = _LABEL_WIDTH
    """Of a panel's labels."""

    @property
    def num_rows(self) -> int:
        """Items with a figure."""
        return sum(len(panel.rows) for panel in self.panels)

    @property
    def folded(self) -> bool:
        """Whether it is shown on demand."""
        return self.num_rows > _FOLDED_FROM


Figures = Mapping[str, Mapping[str, float]]


def _as_stored(figures: Figures, metric: str) -> dict[str, float]:
    return {item: values[metric] for item, values in figures.items() if metric in values}


def per_sequence(figures: Figures, metric: str) -> dict[str, float]:
    """The mean over the objects of each sequence of DAVIS, whose breakdown names them `SEQUENCE_NUMBER`."""
    objects: dict[str, list[float]] = {}
    for item, value in _as_stored(figures, metric).items():
        sequence, _, number = item.rpartition("_")
        objects.setdefault(sequence if sequence and number.isdigit() else item, []).append(value)
    return {sequence: sum(values) / len(values) for sequence, values in objects.items()}


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What a chart shows."""

    metric: str
    title: str
    overall: str
    select: Callable[[Figures, str], dict[str, float]] = _as_stored


_DAVIS_KINDS = (
    _Kind(metric="J&F-Mean", overall="J&F-Mean", title="J&F per sequence (mean over its objects)", select=per_sequence),
)
_SEGMENTATION_KINDS = (_Kind(metric="IoU", overall="mIoU", title="IoU per class"),)
_KINDS: dict[Benchmark, tuple[_Kind, ...]] = {
    DAVIS: _DAVIS_KINDS,
    DAVIS_2016: _DAVIS_KINDS,
    COCO: (
        _Kind(metric="bbox_mAP", overall="bbox_mAP", title="Box AP per class"),
        _Kind(metric="segm_mAP", overall="segm_mAP", title="Mask AP per class"),
    ),
    ADE20K: _SEGMENTATION_KINDS,
    UPERNET: _SEGMENTATION_KINDS,
    LINEAR: (_Kind(metric="linear top-1", overall="linear top-1", title="Linear top-1 per class"),),
}


def _kinds(group: Group) -> Sequence[_Kind]:
    """The charts of a benchmark; of k-NN one for a single k that all results have."""
    if group.benchmark != KNN:
        return _KINDS[group.benchmark]
    results = [entry.result for entry in group.entries]
    shared = set.intersection(*({name for figures in one.breakdown.values() for name in figures} for one in results))
    names = {k: f"{k}-NN top-1" for k in neighbours_of(results) if f"{k}-NN top-1" in shared}
    if not names:
        return ()
    name = names.get(_USUAL_NEIGHBOURS, names[min(names)])
    return (_Kind(metric=name, overall=name, title=f"{name} per class"),)


def dot_charts(group: Group) -> list[DotChart]:
    """Every chart of a group; none for a breakdown that is empty."""
    charts = (_chart(group, kind) for kind in _kinds(group))
    return [chart for chart in charts if chart.panels or chart.without_value]


def _chart(group: Group, kind: _Kind) -> DotChart:
    columns = [kind.select(entry.result.breakdown, kind.metric) for entry in group.entries]
    items = dict.fromkeys(item for column in columns for item in column)
    finite = {
        item: {number: column[item] for number, column in enumerate(columns) if math.isfinite(column.get(item, math.nan))}
        for item in items
    }
    shown = [item for item in items if finite[item]]
    # The best items first; the mean of what is there.
    shown.sort(key=lambda item: (-sum(finite[item].values()) / len(finite[item]), item))
    not_drawn = max(0, len(shown) - 2 * _ENDS) if len(shown) > _MOST_ROWS else 0
    if not_drawn:
        shown = shown[:_ENDS] + shown[-_ENDS:]
    scale = round_scale(
        (value for values in finite.values() for value in values.values()),
        _LABEL_WIDTH,
        _LABEL_WIDTH + _PLOT_WIDTH,
        highest=_PERCENT,
    )
    series = make_series(group, group.entries, kind.overall)
    panels = [
        _panel(shown[start : start + size], finite, scale, series)
        for size in [_panel_size(len(shown))]
        for start in range(0, len(shown), size)
    ]
    return DotChart(
        title=kind.title,
        series=series,
        panels=panels,
        scale=scale,
        not_drawn=not_drawn,
        without_value=sorted(item for item in items if not finite[item]),
    )


def _panel_size(count: int) -> int:
    """Rows per panel, so that panels are equally long."""
    panels = max(1, math.ceil(count / _ROWS_PER_PANEL))
    return max(1, math.ceil(count / panels))


def _panel(items: Sequence[str], finite: Mapping[str, Mapping[int, float]], scale: Scale, series: Sequence[Series]) -> Panel:
    rows = []
    paths: dict[int, str] = {}
    for number, item in enumerate(items):
        y = _ROW_HEIGHT * number + _ROW_HEIGHT // 2
        dots = [Dot(series=index, x=scale.place(value), text=f"{value:.1f}") for index, value in finite[item].items()]
        for dot in dots:
            paths[dot.series] = paths.get(dot.series, "") + series[dot.series].marker(dot.x, y)
        rows.append(
            ChartRow(
                label=item if len(item) <= _LONGEST_LABEL else f"{item[: _LONGEST_LABEL - 1]}…",
                name=item,
                y=y,
                dots=dots,
                words="\n".join([item, *(f"{dot.text} {series[dot.series].entry.name}" for dot in dots)]),
            )
        )
    return Panel(rows=rows, height=_ROW_HEIGHT * len(rows) + _AXIS_HEIGHT, paths=paths)
