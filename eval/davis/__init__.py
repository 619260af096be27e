"""DAVIS-2017 semi-supervised video segmentation by label propagation. Needs no OpenMMLab package."""
