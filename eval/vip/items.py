"""The pixels of every video, for significance."""

from eval.probes.items import ARTEFACT, read_items

__all__ = ["ARTEFACT", "read_items"]
