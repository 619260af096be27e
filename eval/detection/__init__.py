"""Mask R-CNN on COCO."""

import eval.openmmlab  # noqa: F401 - prepares mmcv before any module here imports mmdet
