"""The tested images of dense retrieval, for significance."""

from pathlib import Path

from eval.probes import items
from eval.result import Result


def read_items(result: Result, folder: Path) -> items.Items:
    """As for segmentation, with the protocol's rule for classes that are nowhere; predicted classes stay matched as over all images."""
    return items.read_items(result, folder, bool(result.protocol.settings["absent_classes"]))
