"""The bottleneck ResNet: timm's (torchvision's weight names), asked the two questions of `backbones.base`.

Shapes: B images, D channels, H x W pixels, h x w positions.
"""

from collections.abc import Sequence

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor

from backbones.base import Tokens, check_taps
from backbones.spec import ResNetSpec

_STEM_STRIDE = 4
_FIRST_STAGE_CHANNELS = 256


class BottleneckResNet(ResNet):
    """A ResNet-50 or its deeper and shallower siblings, for any input size."""

    def __init__(self, spec: ResNetSpec, drop_path_rate: float = 0.0) -> None:
        """Build the network with fresh weights.

        Args:
            spec: The architecture.
            drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first. Training mode only.
        """
        super().__init__(block=Bottleneck, layers=spec.layers, num_classes=0, drop_path_rate=drop_path_rate)
        self.spec = spec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        """See `backbones.base.Backbone.forward_tokens`; the positions of the last stage stand for patches."""
        last_BDhw = self.forward_maps(images_B3HW, [self.spec.num_blocks - 1])[0]
        _, _, h, w = last_BDhw.shape
        return Tokens(None, last_BDhw.flatten(2).transpose(1, 2), (h, w))

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `backbones.base.Backbone.forward_maps`; taps are the stages layer1 to layer4, after their last ReLU."""
        check_taps(taps, self.spec)
        features_BDhw = self.maxpool(self.act1(self.bn1(self.conv1(images_B3HW))))
        maps = []
        for index, stage in enumerate([self.layer1, self.layer2, self.layer3, self.layer4][: taps[-1] + 1]):
            features_BDhw = stage(features_BDhw)
            if index in taps:
                maps.append(features_BDhw)
        return maps

    def forward(self, images_B3HW: Tensor) -> Tokens:
        """`forward_tokens`, so that wrappers such as DistributedDataParallel and torch.compile can call the module."""
        return self.forward_tokens(images_B3HW)

    def map_channels(self, taps: Sequence[int]) -> list[int]:
        """See `backbones.base.Backbone.map_channels`."""
        return [_FIRST_STAGE_CHANNELS * 2**tap for tap in taps]

    def map_strides(self, taps: Sequence[int]) -> list[int]:
        """See `backbones.base.Backbone.map_strides`."""
        return [_STEM_STRIDE * 2**tap for tap in taps]
