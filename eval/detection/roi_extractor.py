"""Features of regions, extracted in float32 under mixed precision.

Shapes: B images, C channels, h x w positions, K regions.
"""

import torch
from torch import Tensor

import eval.openmmlab.operators  # noqa: F401 - before anything of mmdet

# isort: split
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):
    """mmdet's extractor outside autocast.

    mmdet 3 converts box coordinates to the features' precision. In bfloat16 (8 significant bits) the right side of a 1333 pixel
    image then lies on a grid of 8 pixels, in float16 of 1 pixel. mmdet 2, with which the published results were made, extracts in
    float32.
    """

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Average features [B, C, h, w] in the bins of each region [K, 5]: image index, then corners in input pixels."""
        with torch.autocast(feats[0].device.type, enabled=False):
            return super().forward(tuple(map_BChw.float() for map_BChw in feats), rois.float(), roi_scale_factor)
