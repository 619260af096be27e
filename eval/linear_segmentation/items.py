"""The tested images of linear segmentation, for significance."""

from pathlib import Path

from eval.probes import items
from eval.result import Result


def read_items(result: Result, folder: Path) -> items.Items:
    """As for segmentation, with the protocol's rule for classes that are nowhere."""
    return items.read_items(result, folder, result.protocol.settings["absent_classes"] == "zero")
