"""timm's bottleneck ResNet (torchvision's weight names) behind the interface of `backbones.base`.

Shapes: B images, D channels, H x W pixels, h x w positions.
"""

from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor

from backbones.base import Backbone, Tokens
from backbones.spec import ResNetSpec


class BottleneckResNet(Backbone, ResNet):
    """A ResNet-50 or its deeper and shallower siblings, for any input size. Stages are tapped after their last ReLU."""

    spec: ResNetSpec

    def __init__(self, spec: ResNetSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__(block=Bottleneck, layers=spec.layers, num_classes=0, drop_path_rate=drop_path_rate)
        self.spec = spec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        last_BDhw = self.forward_maps(images_B3HW, [self.spec.num_blocks - 1])[0]
        _, _, h, w = last_BDhw.shape
        return Tokens(None, last_BDhw.flatten(2).transpose(1, 2), (h, w))

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return self.maxpool(self.act1(self.bn1(self.conv1(images_B3HW)))), {}

    def _blocks(self) -> Any:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def _as_map(self, features: Tensor, images_B3HW: Tensor) -> Tensor:
        return features
