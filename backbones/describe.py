"""What an unrecognised checkpoint holds, in one line, and which layouts come closest to it."""

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from backbones.formats.base import abbreviate

_DEEPEST = 5
_NAMES_PER_GROUP = 40
_SHOWN_GROUPS = 3
_SHOWN_LAYOUTS = 3


def describe(checkpoint: Any) -> str:
    """Top-level keys, and a sample of the names in each group of weights below them."""
    if not isinstance(checkpoint, Mapping):
        return f"a {type(checkpoint).__name__}"
    if not checkpoint:
        return "nothing"
    groups: dict[str, list[str]] = {}
    for path in _paths(checkpoint):
        group, _, name = path.rpartition("/")
        if group:
            groups.setdefault(group, []).append(name)
    samples = [f"in {abbreviate([group])}: {abbreviate(names, 4)}" for group, names in list(groups.items())[:_SHOWN_GROUPS]]
    return "; ".join([f"the top-level keys {abbreviate(map(str, checkpoint), 8)}", *samples])


def closest_layouts(checkpoint: Any, typical: Mapping[str, str]) -> str:
    """The layouts whose typical path is most like one of the checkpoint's, best first, each with that path.

    Args:
        checkpoint: What the file holds.
        typical: `TYPICAL` of each layout by its name.
    """
    paths = list(_paths(checkpoint))
    if not paths:
        return ""
    likeness = {name: max(SequenceMatcher(None, path, wanted).ratio() for path in paths) for name, wanted in typical.items()}
    best = sorted(typical, key=lambda name: -likeness[name])[:_SHOWN_LAYOUTS]
    return ", ".join(f"{name} (has {typical[name]})" for name in best)


def _paths(node: Any, before: str = "", depth: int = 0) -> Iterator[str]:
    """The names in a nested checkpoint, groups joined by `/`; the first few of each group, so that its size does not matter."""
    if not isinstance(node, Mapping) or depth == _DEEPEST:
        return
    for key in list(node)[:_NAMES_PER_GROUP]:
        path = f"{before}/{key}" if before else str(key)
        if isinstance(node[key], Mapping):
            yield from _paths(node[key], path, depth + 1)
        else:
            yield path
