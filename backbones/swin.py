"""The Swin transformer: timm's, asked the two questions of `backbones.base`.

Shapes: B images, D channels, H x W pixels, h x w positions.
"""

from collections.abc import Sequence

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from backbones.base import Tokens, check_taps
from backbones.spec import SwinSpec


class Swin(SwinTransformer):
    """A Swin transformer for any input size that its strides divide.

    Windows and shifts are those of the pretraining size (`spec.image_size`): a stage that fits one window there has no shifted
    windows at other sizes either. Feature maps that a window does not divide are padded at the bottom and right.
    """

    def __init__(self, spec: SwinSpec, drop_path_rate: float = 0.0) -> None:
        """Build the network with fresh weights.

        Args:
            spec: The architecture.
            drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first. Training mode only.
        """
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

    def _check_size(self, images_B3HW: Tensor) -> None:
        stride = self.map_strides([self.spec.num_blocks - 1])[0]
        height, width = images_B3HW.shape[-2:]
        if height % stride or width % stride or not height or not width:
            raise ValueError(f"image size {height} x {width} is not a multiple of this Swin's stride {stride}")

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        """See `backbones.base.Backbone.forward_tokens`; the positions of the last stage stand for patches."""
        self._check_size(images_B3HW)
        features_BhwD = self.norm(self.layers(self.patch_embed(images_B3HW)))
        _, h, w, _ = features_BhwD.shape
        return Tokens(None, features_BhwD.flatten(1, 2), (h, w))

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `backbones.base.Backbone.forward_maps`; taps are stages."""
        check_taps(taps, self.spec)
        self._check_size(images_B3HW)
        features_BhwD = self.patch_embed(images_B3HW)
        maps = []
        for index, stage in enumerate(self.layers[: taps[-1] + 1]):
            features_BhwD = stage(features_BhwD)
            if index in taps:
                maps.append(features_BhwD.permute(0, 3, 1, 2).contiguous())
        return maps

    def forward(self, images_B3HW: Tensor) -> Tokens:
        """`forward_tokens`, so that wrappers such as DistributedDataParallel and torch.compile can call the module."""
        return self.forward_tokens(images_B3HW)

    def map_channels(self, taps: Sequence[int]) -> list[int]:
        """See `backbones.base.Backbone.map_channels`."""
        return [self.spec.embed_dim * 2**tap for tap in taps]

    def map_strides(self, taps: Sequence[int]) -> list[int]:
        """See `backbones.base.Backbone.map_strides`."""
        return [self.spec.patch_size * 2**tap for tap in taps]
