"""The data of depth: NYU in BTS's layout."""

from eval.probes.nyu import examine

__all__ = ["examine"]
