"""The tested images of dense retrieval, for significance."""

from pathlib import Path

from eval.probes import items
from eval.result import Result


def read_items(result: Result, folder: Path) -> items.Items:
    """As for segmentation, by the protocol's `absent_classes`; predicted classes stay matched as they are over all images."""
    return items.read_items(result, folder, bool(result.protocol.settings["absent_classes"]))
