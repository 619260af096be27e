"""Significance takes the precision of every strong change."""

from eval.probes.means import read_items

__all__ = ["read_items"]
