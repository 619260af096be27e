"""Published checkpoint layouts as tables, and which of them a checkpoint has.

To add a layout, put a `Layout` into the `LAYOUTS` of the module that it fits best. A new module also goes into `LAYOUTS` below.
"""

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

from backbones.layouts import contrastive, dinov2, dinov3, libraries, patchbench, student_teacher
from backbones.layouts.base import Conversion, Layout
from backbones.layouts.keys import LayoutError, abbreviate

__all__ = ["LAYOUTS", "Conversion", "Layout", "LayoutError", "abbreviate", "describe", "identify", "layouts_of"]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for module in (patchbench, student_teacher, dinov2, dinov3, contrastive, libraries)
    for layout in module.LAYOUTS
}
"""Every known layout by name."""

_DEEPEST = 5
_NAMES_PER_GROUP = 40
_MOST_PATHS = 1000
_LONGEST_PATH = 200
_SHOWN = 3


def layouts_of(checkpoint: Any) -> list[Layout]:
    """The layouts that a checkpoint may have: those whose marks it bears, without those that another one of them specialises."""
    matching = [layout for layout in LAYOUTS.values() if layout.matches(checkpoint)]
    general = {name for layout in matching for name in layout.specialises}
    return [layout for layout in matching if layout.name not in general]


def identify(checkpoint: Any) -> Layout:
    """The one layout that a checkpoint has; else LayoutError, with what the checkpoint holds and which layouts come closest."""
    matching = layouts_of(checkpoint)
    if len(matching) == 1:
        return matching[0]
    holds = f"the checkpoint holds {describe(checkpoint)}"
    if matching:
        names = ", ".join(layout.name for layout in matching)
        raise LayoutError(f"several layouts match: {names}; choose one with --format; {holds}")
    closest = _closest_layouts(checkpoint)
    raise LayoutError(f"no known layout matches; {holds}; the closest of {len(LAYOUTS)} layouts: {closest or 'none'}")


def describe(checkpoint: Any) -> str:
    """Top-level keys, and a sample of the names in each group of weights below them."""
    if not isinstance(checkpoint, Mapping):
        return f"a {type(checkpoint).__name__}"
    if not checkpoint:
        return "nothing"
    groups: dict[str, list[str]] = {}
    for path in islice(_paths(checkpoint), _MOST_PATHS):
        group, _, name = path.rpartition("/")
        if group:
            groups.setdefault(group, []).append(name)
    samples = [f"in {abbreviate([group])}: {abbreviate(names, 4)}" for group, names in list(groups.items())[:_SHOWN]]
    return "; ".join([f"the top-level keys {abbreviate(map(str, checkpoint), 8)}", *samples])


def _closest_layouts(checkpoint: Any) -> str:
    """The layouts whose typical path is most like one of the checkpoint's, best first, each with that path."""
    paths = list(islice(_paths(checkpoint), _MOST_PATHS))
    if not paths:
        return ""

    def likeness(layout: Layout) -> float:
        return max(SequenceMatcher(None, path, layout.typical).ratio() for path in paths)

    best = sorted(LAYOUTS.values(), key=likeness, reverse=True)[:_SHOWN]
    return ", ".join(f"{layout.name} (has {layout.typical})" for layout in best)


def _paths(node: Any, before: str = "", depth: int = 0) -> Iterator[str]:
    """The names in a nested checkpoint, groups joined by `/`; the first few of each group, so that its size does not matter."""
    if not isinstance(node, Mapping) or depth == _DEEPEST:
        return
    for key in list(node)[:_NAMES_PER_GROUP]:
        path = (f"{before}/{key}" if before else str(key))[:_LONGEST_PATH]
        if isinstance(node[key], Mapping):
            yield from _paths(node[key], path, depth + 1)
        else:
            yield path
