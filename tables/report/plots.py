"""Draws the page's charts with Matplotlib: values per sequence or class of several backbones, and training curves.

Each chart becomes an SVG element of the page, so that it follows the page's light or dark colours, and a reader can choose the
backbones that it shows.
"""

import io
import math
import re
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.plots import read_log
from eval.registry import Chart
from eval.result import Metric
from tables.collect import Measurement
from tables.headline import QUOTED_KNN
from tables.render import plain
from tables.report.data import Group, page_path
from tables.report.pictures import path_within
from tables.rows import standing

LOG_ARTEFACT = "training_log"

# Name of a colour in the style sheet -> the value that stands for it in a drawing.
_COLOURS = {
    "c0": "#0b6bcb",
    "c1": "#c2410c",
    "c2": "#0f766e",
    "c3": "#a21caf",
    "c4": "#8a6500",
    "c5": "#4b5563",
    "ink": "#1b1f24",
    "quiet": "#545c66",
    "line": "#d9dde2",
    "page": "#ffffff",
}
_NUM_SERIES_COLOURS = 6
_MARKERS = "osD^"
_SHAPES = "●■◆▲"
"""The markers as characters. The shape changes after the last colour, so that every backbone differs in colour or shape."""
_SHOWN_AT_FIRST = 6

_POINTS_PER_INCH = 72
_FONT_SIZE = 12
_STEPS = [1, 2, 2.5, 5, 10]

_ROW_HEIGHT, _ROWS_PER_PANEL, _AXIS_HEIGHT = 18, 20, 24
_LABEL_WIDTH, _PLOT_WIDTH, _MARGIN = 130, 190, 14
_LONGEST_LABEL = 19
_FOLDED_FROM = 90  # Charts with more rows are folded.
_MOST_ROWS, _ENDS = 200, 60  # A chart with more than `_MOST_ROWS` rows shows `_ENDS` rows from either end.

_CURVES_SIZE = (330, 150)
_MOST_POINTS = 150
"""Largest number of points of a curve; in a longer log, each point is the mean over several lines."""
_LARGEST = 1e30  # Beyond, Matplotlib finds no ticks.
_ITERATION, _LOSS, _RATE = "iteration", "loss", "lr"

Log = list[dict[str, float]]


def item_charts(group: Group) -> list[dict[str, Any]]:
    """The charts of a group's breakdowns, as the template's macro `item_chart` shows them; empty breakdowns have none."""
    charts = (_item_chart(group, chart, f"{group.anchor}-{number}") for number, chart in enumerate(_charts(group)))
    return [chart for chart in charts if chart["panels"] or chart["without_value"]]


def _charts(group: Group) -> Sequence[Chart]:
    if group.benchmark.charts:
        return group.benchmark.charts
    names = (
        {name for values in measurement.result.breakdown.values() for name in values} for measurement in group.measurements
    )
    shared = sorted(name for name in set.intersection(*names) if re.fullmatch(group.benchmark.metric_pattern, name))
    chosen = QUOTED_KNN if QUOTED_KNN in shared else next(iter(shared), "")
    return [Chart(chosen, chosen, f"{chosen} per class")] if chosen else []


def values_per_item(measurement: Measurement, metric: str, items: str) -> dict[str, float]:
    """A metric's values by item. The value of a sequence is the mean over its objects, named `SEQUENCE_NUMBER` in the breakdown."""
    found: dict[str, list[float]] = {}
    for name, values in measurement.result.breakdown.items():
        if metric in values:
            item = re.sub(r"(?<=.)_\d+$", "", name) if items == "sequences" else name
            found.setdefault(item, []).append(values[metric])
    return {item: sum(values) / len(values) for item, values in found.items()}


def _item_chart(group: Group, chart: Chart, anchor: str) -> dict[str, Any]:
    columns = [values_per_item(measurement, chart.metric, group.benchmark.items) for measurement in group.measurements]
    values = {
        item: {number: column[item] for number, column in enumerate(columns) if math.isfinite(column.get(item, math.nan))}
        for item in dict.fromkeys(item for column in columns for item in column)
    }
    # Items with the highest mean come first.
    shown = sorted(
        (item for item, of_item in values.items() if of_item),
        key=lambda item: (-sum(values[item].values()) / len(values[item]), item),
    )
    not_drawn = max(0, len(shown) - 2 * _ENDS) if len(shown) > _MOST_ROWS else 0
    if not_drawn:
        shown = shown[:_ENDS] + shown[-_ENDS:]
    ticks = _ticks([value for item in shown for value in values[item].values()])
    names = [measurement.name for measurement in group.measurements]
    size = math.ceil(len(shown) / max(1, math.ceil(len(shown) / _ROWS_PER_PANEL)))
    panels = []
    for start in range(0, len(shown), max(1, size)):
        items = shown[start : start + size]
        label = f"{chart.title}, percent; {len(items)} rows from {items[0]} to {items[-1]}"
        panels.append(_dots({item: values[item] for item in items}, names, ticks, label, f"{anchor}-{start}"))
    return {
        "title": chart.title,
        "anchor": anchor,
        "legend": _legend(group, group.measurements, chart.overall),
        "panels": panels,
        "num_rows": len(shown),
        "folded": len(shown) > _FOLDED_FROM,
        "without_value": sorted(item for item, of_item in values.items() if not of_item),
        "not_drawn": not_drawn,
    }


def _dots(
    rows: Mapping[str, Mapping[int, float]], names: Sequence[str], ticks: Sequence[float], label: str, salt: str
) -> Markup:
    """A chart with a row for each item and a dot for each backbone, from {item: {index of the backbone: value}}."""
    width, height = _LABEL_WIDTH + _PLOT_WIDTH + _MARGIN, _ROW_HEIGHT * len(rows) + _AXIS_HEIGHT
    figure, axes = _axes(width, height, (_LABEL_WIDTH, _AXIS_HEIGHT, _PLOT_WIDTH, _ROW_HEIGHT * len(rows)))
    axes.set(xlim=(ticks[0], ticks[-1]), ylim=(len(rows) - 0.5, -0.5), xticks=ticks)
    axes.grid(axis="x")
    short = [item if len(item) <= _LONGEST_LABEL else f"{item[: _LONGEST_LABEL - 1]}…" for item in map(plain, rows)]
    axes.set_yticks(range(len(rows)), short, parse_math=False, color=_COLOURS["ink"])
    titles = {}
    for row, (item, of_item) in enumerate(rows.items()):
        # This area over a row shows its values when the mouse is there.
        axes.axhspan(row - 0.5, row + 0.5, xmin=-_LABEL_WIDTH / _PLOT_WIDTH, zorder=3, gid=f"row-{row}")
        titles[f"row-{row}"] = "\n".join([item, *(f"{value:.1f} {names[index]}" for index, value in of_item.items())])
    for index in dict.fromkeys(index for of_item in rows.values() for index in of_item):
        places = [(of_item[index], row) for row, of_item in enumerate(rows.values()) if index in of_item]
        axes.plot(
            *zip(*places, strict=True),
            linestyle="",
            marker=_MARKERS[index // _NUM_SERIES_COLOURS % len(_MARKERS)],
            markersize=8,
            color=_COLOURS[f"c{index % _NUM_SERIES_COLOURS}"],
            markeredgecolor=_COLOURS["page"],
            markeredgewidth=0.75,
            zorder=2,
            gid=f"series-{index}",
        )
    return _svg(figure, label, salt, titles)


def _legend(group: Group, measurements: Sequence[Measurement], metric: str) -> list[dict[str, Any]]:
    """A line for each backbone, with its metric over all items if the result has it."""
    overall = [measurement.result.metrics.get(metric, Metric(value=math.nan)).value for measurement in measurements]
    return [
        {
            "index": index,
            "measurement": measurement,
            "status": standing(measurement.result, group.benchmark.key),
            "overall": f"{value:.1f}" if math.isfinite(value) else "",
            "colour": f"c{index % _NUM_SERIES_COLOURS}",
            "shape": _SHAPES[index // _NUM_SERIES_COLOURS % len(_SHAPES)],
            "shown": index < _SHOWN_AT_FIRST,
        }
        for index, (measurement, value) in enumerate(zip(measurements, overall, strict=True))
    ]


def training_curves(group: Group) -> dict[str, Any] | None:
    """The curves of a group, as the template's macro `training_curves` shows them; None for a task that keeps no log."""
    measurements = [measurement for measurement in group.measurements if LOG_ARTEFACT in measurement.result.artefacts]
    if not measurements:
        return None
    logs: dict[int, Log] = {}
    runs = []
    for index, measurement in enumerate(measurements):
        relative = measurement.result.artefacts[LOG_ARTEFACT]
        run = {"measurement": measurement, "plots": [], "problem": "", "cut_off": 0}
        try:
            logs[index], run["cut_off"] = read_log(path_within(measurement.folder, relative))
            run["plots"] = _run_plots(logs[index], f"{group.anchor}-run{index}")
        except ValueError as error:
            run["problem"] = f"{page_path(measurement, relative)} {error}"
        runs.append(run)
    losses = {index: (log, _LOSS) for index, log in logs.items()}
    loss = _curves("Total loss", losses, f"{group.anchor}-loss", as_series=True) if len(logs) > 1 else None
    return {"legend": _legend(group, measurements, ""), "loss": loss, "runs": runs}


def _run_plots(log: Log, salt: str) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for line in log for name in line))
    parts = [name for name in names if "loss" in name and name != _LOSS]
    panels = {
        "Total loss": [_LOSS],
        "Parts of the loss": parts if len(parts) > 1 else [],  # a single part is the total loss itself
        # The only other values are accuracies of the heads.
        "Training accuracy (%)": [name for name in names if "loss" not in name and name not in (_ITERATION, _RATE)],
        "Learning rate": [_RATE],
    }
    return draw_panels(log, panels, salt)


def draw_panels(log: Log, panels: Mapping[str, Sequence[str]], salt: str) -> list[dict[str, Any]]:
    """Plots of a log's values over iterations, from {title: names}; those without values are left out."""
    plots = [
        _curves(title, {number: (log, name) for number, name in enumerate(names)}, f"{salt}-{title}")
        for title, names in panels.items()
    ]
    return [plot for plot in plots if plot]


def _curves(title: str, curves: Mapping[int, tuple[Log, str]], salt: str, as_series: bool = False) -> dict[str, Any] | None:
    """A plot of {index of the colour: (log, name of the value)} over iterations; None if there is no value at all."""
    found = {index: averaged(log, name) for index, (log, name) in curves.items()}
    points = {index: line for index, (line, _) in found.items() if line}
    if not points:
        return None
    width, height = _CURVES_SIZE
    figure, axes = _axes(width, height, (52, 22, width - 64, height - 30))
    last = max(line[-1][0] for line in points.values())
    y_ticks = _ticks([value for line in points.values() for _, value in line])
    axes.set(xlim=(0, last), ylim=(y_ticks[0], y_ticks[-1]), yticks=y_ticks)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS, integer=True))
    axes.grid(axis="y")
    for index, line in points.items():
        axes.plot(
            *zip(*line, strict=True),
            color=_COLOURS[f"c{index % _NUM_SERIES_COLOURS}"],
            linewidth=1.75,
            marker="o" if len(line) == 1 else "",
            gid=f"series-{index}" if as_series else None,
        )
    named = [] if as_series or len(points) == 1 else [(curves[index][1], f"c{index % _NUM_SERIES_COLOURS}") for index in points]
    return {
        "title": title,
        "svg": _svg(figure, f"{title} over {last:g} iterations", salt),
        "legend": named,
        "lines_per_point": max(size for _, size in found.values()),
    }


def averaged(log: Log, name: str) -> tuple[list[tuple[float, float]], int]:
    """Points (iteration, value), each a mean over lines with a value that can be drawn, and the number of lines behind a point."""
    lines = [(line[_ITERATION], line[name]) for line in log if abs(line.get(name, math.nan)) < _LARGEST]
    size = max(1, math.ceil(len(lines) / _MOST_POINTS))
    parts = [zip(*lines[start : start + size], strict=True) for start in range(0, len(lines), size)]
    return [(statistics.fmean(iterations), statistics.fmean(values)) for iterations, values in parts], size


def _ticks(values: Sequence[float]) -> list[float]:
    """Round ticks from 0, or from below the lowest negative value, to beyond the highest value."""
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    ticks = MaxNLocator(5, steps=_STEPS).tick_values(low, high if high > low else low + 1.0)
    return [float(tick) for tick in ticks]


def _axes(width: float, height: float, place: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A figure of this size in points, with plain axes at `place` (left, bottom, width, height)."""
    left, bottom, inner_width, inner_height = place
    figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
    axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
    axes.spines[:].set_visible(False)
    axes.tick_params(
        length=0, pad=7, labelsize=_FONT_SIZE, labelcolor=_COLOURS["quiet"], grid_color=_COLOURS["line"], grid_linewidth=1
    )
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, label: str, salt: str, titles: Mapping[str, str] | None = None) -> Markup:
    """The drawing as an element of an HTML page. `label` describes it to screen readers, `salt` makes its ids unique in the page.

    The page's script can switch off artists with the gid `series-N`. `titles` (gid -> text) show when the mouse is there.
    """
    for artist in figure.findobj():
        artist.set_clip_on(False)  # a clip path is referred to by an address, which the page must not have
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}), warnings.catch_warnings():
        # The browser draws the text; a letter that Matplotlib's font lacks does no harm.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(stream.getvalue())
    names = {value: name for name, value in _COLOURS.items()}
    for element in root.iter():
        # In HTML, SVG's elements and attributes have no namespaces. The page's policy forbids `style`, but each of its properties
        # can be an attribute.
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        properties = dict(text.split(": ", 1) for text in attributes.pop("style", "").split("; ") if text)
        properties.pop("font-family", None)
        attributes |= {name: f"var(--{names[value]})" if value in names else value for name, value in properties.items()}
        gid = attributes.pop("id", "") if element.tag == "g" else ""
        element.attrib.clear()
        element.attrib.update(attributes)
        kind, _, number = gid.partition("-")
        if kind == "series" and number:
            element.attrib |= {"class": "series" if int(number) < _SHOWN_AT_FIRST else "series off", "data-series": number}
        if titles and gid in titles:
            element.set("class", "row")
            title = ElementTree.Element("title")
            title.text = titles[gid]
            element.insert(0, title)
    _tidy(root)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))  # ElementTree escaped it


def _tidy(element: ElementTree.Element) -> None:
    """Remove styles, groups that say nothing, and space between elements, which are most of a drawing."""
    children: list[ElementTree.Element] = []
    for child in element:
        _tidy(child)
        if child.tag == "g" and not child.attrib:
            children += child
        elif child.tag != "style":
            children.append(child)
    element[:] = children
    element.text, element.tail = (element.text or "").strip(), None
