"""What vision transformers share whose blocks all have one width and one stride.

Shapes: B images, D channels, H x W pixels, h x w patches, N = h*w patches, T = N and the tokens before the patches.
"""

from collections.abc import Sequence

from torch import Tensor

from backbones.base import Tokens
from backbones.spec import PlainViTSpec


class PlainViT:
    """Mixed into an `nn.Module` of timm's that has `num_prefix_tokens`; before it, so that these methods are the ones called."""

    spec: PlainViTSpec
    num_prefix_tokens: int

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        """See `backbones.base.Backbone.forward_tokens`."""
        raise NotImplementedError

    def forward(self, images_B3HW: Tensor) -> Tokens:
        """`forward_tokens`, so that wrappers such as DistributedDataParallel and torch.compile can call the module."""
        return self.forward_tokens(images_B3HW)

    def map_channels(self, taps: Sequence[int]) -> list[int]:
        """See `backbones.base.Backbone.map_channels`."""
        return [self.spec.embed_dim for _ in taps]

    def map_strides(self, taps: Sequence[int]) -> list[int]:
        """See `backbones.base.Backbone.map_strides`."""
        return [self.spec.patch_size for _ in taps]

    def _grid(self, images_B3HW: Tensor) -> tuple[int, int]:
        """The patches' (h, w); ValueError for a size that they do not divide."""
        height, width = images_B3HW.shape[-2:]
        patch = self.spec.patch_size
        if height % patch or width % patch or not height or not width:
            raise ValueError(f"image size {height} x {width} is not a multiple of the patch size {patch}")
        return height // patch, width // patch

    def _tokens(self, tokens_BTD: Tensor, grid: tuple[int, int]) -> Tokens:
        """What `forward_tokens` gives of all tokens; registers are left out."""
        cls_BD = tokens_BTD[:, 0] if self.spec.class_token else None
        return Tokens(cls_BD, tokens_BTD[:, self.num_prefix_tokens :], grid)

    def _map(self, tokens_BTD: Tensor, grid: tuple[int, int]) -> Tensor:
        """The patches among all tokens as a map [B, D, h, w]."""
        return tokens_BTD[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)
