"""Networks of other families under the protocols of the probes."""

from pathlib import Path
from typing import Any

from backbones.spec import TimmSpec
from eval.depth import protocol as depth
from eval.depth.config import DepthConfig
from eval.linear_segmentation import protocol as linear_segmentation
from eval.linear_segmentation.config import LinearSegmentationConfig
from eval.probes.sets import VOC2012
from eval.retrieval_segmentation import protocol as retrieval_segmentation
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig

PATHS: dict[str, Any] = {"backbone": Path("b"), "data": Path("d"), "output": Path("o")}


def test_a_network_of_another_family_is_a_deviation_of_every_probe() -> None:
    """Nothing is published for it, so the tables must mark its numbers."""
    spec = TimmSpec(name="resnet18", channels=(64,), strides=(16,), image_size=224, size_step=16)
    linear = LinearSegmentationConfig(**PATHS)
    for protocol in (
        linear_segmentation.protocol_of(linear, VOC2012, "train", spec),
        retrieval_segmentation.protocol_of(RetrievalSegmentationConfig(**PATHS), 16, spec),
        depth.protocol_of(DepthConfig(**PATHS), spec),
    ):
        assert protocol.deviations == {"backbone": ["ViT, DINOv3, Swin or ResNet", "resnet18 (timm)"]}
