"""Published checkpoint layouts as tables, and which of them a checkpoint has.

To add a layout, put a `Layout` into the `LAYOUTS` of the module that it fits best. A new module also goes into `LAYOUTS` below.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from backbones.layouts import authors, dinov2, dinov3, libraries, patchbench
from backbones.layouts.base import Conversion, Layout, Network
from backbones.layouts.keys import LayoutError, UnknownNetworkError, abbreviate
from backbones.layouts.search import beside, choose, find_networks, groups, most_special

__all__ = ["LAYOUTS", "NAMINGS", "Conversion", "Layout", "LayoutError", "abbreviate", "convert"]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for module in (patchbench, authors, dinov2, dinov3, libraries) for layout in module.LAYOUTS
}
"""Every known layout by name."""
NAMINGS = [layout for layout in LAYOUTS.values() if layout.marks and layout.place is None]
"""Those that say how the tensors of a network are called."""

_GROUPS_SHOWN = 3


def layouts_of(checkpoint: Any, networks: list[Network]) -> list[Layout]:
    """The layouts that a checkpoint with these networks may have, without those that another one of them specialises.

    Where an author's file is recognised, the namings of its networks are not a choice.
    """
    in_files = [network for network in networks if network.naming.name in ("timm", "mmpretrain")]  # the names that authors have
    files = []
    for layout in LAYOUTS.values():
        if layout.place is None or (layout.also is not None and not layout.also(checkpoint)):
            continue
        place = layout.place.replace("{branch}", layout.branches[0])
        if any(network.place == place and layout.bears_marks(network.weights.keys()) for network in in_files):
            files.append(layout)
    return most_special(files) or list({network.naming.name: network.naming for network in networks}.values())


def convert(checkpoint: Any, layout_name: str | None, branch: str | None, num_heads: int | None) -> Conversion:
    """Take the backbone of a loaded checkpoint; ValueError if it is of no known layout, of several, or does not fit.

    Its names are those that `search.in_plain_names` gives.
    """
    if layout_name not in (None, *LAYOUTS):
        raise LayoutError(f"unknown layout {layout_name!r}; known: {', '.join(LAYOUTS)}")
    if patchbench.is_own_checkpoint(checkpoint) and layout_name in (None, patchbench.PATCHBENCH.name):
        try:
            return patchbench.convert(checkpoint, branch, num_heads)
        except KeyError as error:
            raise LayoutError(f"incomplete checkpoint, it has no {error}") from error
    networks = find_networks(checkpoint, NAMINGS)
    layouts = layouts_of(checkpoint, networks)
    layout = identify(checkpoint, layouts) if layout_name is None else LAYOUTS[layout_name]
    if layout not in layouts:
        raise LayoutError(f"not in the {layout.name} layout; the checkpoint holds {describe(checkpoint)}")
    if layout.place is None:
        network, branch, reason = choose(checkpoint, [network for network in networks if network.naming == layout], branch)
    else:
        branch, reason = branch or layout.branches[0], ""
        network = _network_of(branch, layout, networks)
    found = layout.convert(checkpoint, network, branch, num_heads)
    others = beside(checkpoint, network, networks, layout.drops)
    return replace(found, dropped={**found.dropped, **others}, branch_reason=reason)


def _network_of(branch: str, layout: Layout, networks: list[Network]) -> Network:
    if branch not in layout.branches:
        raise LayoutError(f"the {layout.name} layout has no branch {branch!r}; it has {', '.join(layout.branches)}")
    place = (layout.place or "").replace("{branch}", branch)
    for network in networks:
        if network.place == place:
            return network
    raise LayoutError(f"incomplete checkpoint, it has no {branch} in the {layout.name} layout")


def identify(checkpoint: Any, layouts: list[Layout]) -> Layout:
    """The only one of the layouts; else LayoutError, with what the checkpoint holds."""
    if len(layouts) == 1:
        return layouts[0]
    holds = f"the checkpoint holds {describe(checkpoint)}"
    if layouts:
        names = [layout.name for layout in layouts]
        hints = [("--format", name) for name in names]
        raise LayoutError(f"several layouts match: {', '.join(names)}; choose one with --format; {holds}", hints)
    raise UnknownNetworkError(f"no known layout matches; {holds}")


def describe(checkpoint: Any) -> str:
    """Top-level keys, and a sample of the names in each group of weights below them."""
    if not isinstance(checkpoint, Mapping):
        return f"a {type(checkpoint).__name__}"
    if not checkpoint:
        return "nothing"
    samples = (
        f"in {abbreviate([path])}: {abbreviate(map(str, node), 4)}"
        for path, node in groups(checkpoint)
        if path and not any(isinstance(value, Mapping) for value in node.values())
    )
    return "; ".join([f"the top-level keys {abbreviate(map(str, checkpoint), 8)}", *islice(samples, _GROUPS_SHOWN)])
