"""The data of linear segmentation: whichever of the sets with label maps is in a folder."""

from eval.probes.sets import examine_set as examine

__all__ = ["examine"]
