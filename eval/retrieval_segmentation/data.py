"""The data check of dense retrieval, which is that of all data sets with label maps."""

from eval.probes.data import examine_set as examine

__all__ = ["examine"]
