"""Mask R-CNN on COCO."""
