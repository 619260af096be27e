"""Significance takes the metrics of every image."""

from eval.probes.means import read_items

__all__ = ["read_items"]
