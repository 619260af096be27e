"""The data of object discovery: PASCAL VOC and COCO 20k with the boxes of their objects."""

from eval.probes.boxes import examine

__all__ = ["examine"]
