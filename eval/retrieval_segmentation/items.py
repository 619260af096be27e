"""The test images behind a result of dense retrieval, for the significance of differences."""

from collections.abc import Callable, Mapping
from pathlib import Path

from eval.probes import items
from eval.result import Result


def read_items(
    result: Result, folder: Path
) -> tuple[tuple[str, ...], Mapping[str, items.Array], Callable[[items.Array], Mapping[str, items.Array]]] | None:
    """`eval.probes.items.read_items`; predicted classes stay matched with true ones as they are over all images."""
    return items.read_items(result, folder, bool(result.protocol.settings["absent_classes"]))
