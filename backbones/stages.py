"""Networks of several stages, Swin transformers and ResNets: timm's behind the interface of `backbones.base`.

Shapes: B images, D channels, H x W pixels, h x w positions.
"""

from collections.abc import Sequence

from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from backbones.base import Backbone, Tokens, check_size, check_taps, map_as_tokens
from backbones.spec import ResNetSpec, SwinSpec


class Swin(Backbone, SwinTransformer):
    """A Swin transformer for any input size that its strides divide.

    Windows are those of the pretraining size (`spec.image_size`). Every second block shifts them along each side that is longer than
    a window, at whatever size: the last stage is one window in pretraining and unshifted, and at larger sizes shifted, as in the
    authors' code for detection and segmentation. Feature maps that a window does not divide are padded at the bottom and right.
    """

    spec: SwinSpec

    def __init__(self, spec: SwinSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            img_size=spec.image_size,
            patch_size=spec.patch_size,
            num_classes=0,
            embed_dim=spec.embed_dim,
            depths=spec.depths,
            num_heads=spec.num_heads,
            window_size=spec.window_size,
            strict_img_size=False,
            drop_path_rate=drop_path_rate,
        )
        self.spec = spec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        self._shift_windows(images_B3HW)
        features_BhwD = self.forward_features(images_B3HW)
        _, h, w, _ = features_BhwD.shape
        return Tokens(None, features_BhwD.flatten(1, 2), (h, w))

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        check_taps(taps, self.spec)
        self._shift_windows(images_B3HW)
        maps: list[Tensor]
        maps = self.forward_intermediates(images_B3HW, indices=list(taps), stop_early=True, intermediates_only=True)
        return maps

    def _shift_windows(self, images_B3HW: Tensor) -> None:
        """Set for this size which blocks shift their windows; ValueError for a size that the strides do not divide."""
        height, width = images_B3HW.shape[-2:]
        check_size(self.spec, height, width)
        for stage, stage_stride in zip(self.layers, self.map_strides(range(self.spec.num_blocks)), strict=True):
            for block in stage.blocks[1::2]:
                sides = height // stage_stride, width // stage_stride
                block.shift_size = tuple(
                    window // 2 if side > window else 0 for side, window in zip(sides, block.window_size, strict=True)
                )


class BottleneckResNet(Backbone, ResNet):
    """A ResNet-50 or its deeper and shallower siblings, for any input size. Stages are tapped after their last ReLU."""

    spec: ResNetSpec

    def __init__(self, spec: ResNetSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__(block=Bottleneck, layers=spec.layers, num_classes=0, drop_path_rate=drop_path_rate)
        self.spec = spec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        return map_as_tokens(self.forward_features(images_B3HW))

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        check_taps(taps, self.spec)
        after_stem = [tap + 1 for tap in taps]  # of timm's maps the stem's is the first
        maps: list[Tensor]
        maps = self.forward_intermediates(images_B3HW, indices=after_stem, stop_early=True, intermediates_only=True)
        return maps
