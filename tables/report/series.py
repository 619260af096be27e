"""Backbones as a chart tells them apart: by colour and by shape, so that neither alone must do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tables.report.groups import Entry, Group
from tables.rows import Status

COLOURS = 6
"""Colours in the style sheet, `c0` to `c5`."""
_SHAPES = (
    "m-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0-8.4 0z",
    "m-3.9-3.9h7.8v7.8h-7.8z",
    "m0-5.4l5.4 5.4l-5.4 5.4l-5.4-5.4z",
    "m0-5.2l4.8 8.6h-9.6z",
)
"""SVG path data of a disc, a square, a diamond and a triangle about the current point."""

_SHOWN_AT_FIRST = 6


@dataclass(frozen=True, kw_only=True)
class Series:
    """One backbone in a chart."""

    index: int
    """In the chart."""
    entry: Entry
    """Whose figures."""
    status: Status
    """What they are worth."""
    overall: str
    """The figure over all items, rounded; empty where there is none."""

    @property
    def colour(self) -> int:
        """Class of its colour."""
        return self.index % COLOURS

    def marker(self, x: float, y: float) -> str:
        """SVG path data of its dot at a place; another shape when the colours have been through."""
        return f"M{x:g} {y:g}{_SHAPES[self.index // COLOURS % len(_SHAPES)]}"

    @property
    def shown(self) -> bool:
        """Whether it is shown before the reader chooses."""
        return self.index < _SHOWN_AT_FIRST


def make_series(group: Group, entries: Sequence[Entry], metric: str) -> list[Series]:
    """A series per entry, with its figure over all items.

    Args:
        group: Whose results.
        entries: In the order of the legend.
        metric: Name of the figure; not every result must have it.
    """
    return [
        Series(index=index, entry=entry, status=group.status(entry), overall=_rounded(entry, metric))
        for index, entry in enumerate(entries)
    ]


def _rounded(entry: Entry, metric: str) -> str:
    found = entry.result.metrics.get(metric)
    return f"{found.value:.1f}" if found is not None and math.isfinite(found.value) else ""
