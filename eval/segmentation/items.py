"""The tested images of segmentation, for significance."""

from eval.probes.items import read_items

__all__ = ["read_items"]
