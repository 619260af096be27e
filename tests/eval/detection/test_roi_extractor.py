import torch

import eval.detection  # noqa: F401 - prepares mmcv

# isort: split
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

from eval.detection.roi_extractor import Float32RoIExtractor

OPTIONS = {
    "roi_layer": {"type": "RoIAlign", "output_size": 2, "sampling_ratio": 0},
    "out_channels": 1,
    "featmap_strides": [4, 8],
}


def test_boxes_are_not_rounded_to_the_features_precision() -> None:
    # A ramp: the average over a box tells where the box is. 301 is no bfloat16 (300 and 302 are).
    features = tuple(torch.arange(400 // stride).float().expand(1, 1, 8, -1).contiguous() for stride in (4, 8))
    rois = torch.tensor([[0.0, 281.0, 8.0, 301.0, 28.0]])
    wanted = SingleRoIExtractor(**OPTIONS)(features, rois)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Float32RoIExtractor(**OPTIONS)(tuple(level.bfloat16() for level in features), rois)
        rounded = SingleRoIExtractor(**OPTIONS)(tuple(level.bfloat16() for level in features), rois)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(rounded.float(), wanted, atol=0.05)
