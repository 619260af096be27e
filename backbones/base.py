"""The two questions that every backbone answers.

Shapes: B images, D channels, N = h*w patches or positions.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from backbones.spec import BackboneSpec


class Tokens(NamedTuple):
    """The outcome of the whole network for one batch."""

    cls: Tensor | None
    """[B, D], or None where the backbone has no CLS token."""
    patches: Tensor
    """[B, N, D], row-major over the grid."""
    grid: tuple[int, int]
    """(h, w) with h * w == N."""


class Backbone(Protocol):
    """What every adapter (an `nn.Module` under timm's parameter names) provides beside its module methods."""

    spec: BackboneSpec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        """Features after the last block and, where the spec has one, the final norm.

        Args:
            images_B3HW: float images normalised with the ImageNet mean and deviation, of any size that the patch size divides.

        Raises:
            ValueError: If the image size does not fit the patch size.
        """
        ...

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Features [B, D, h, w] after each tapped block (ViT) or stage (Swin, ResNet), without the final norm.

        Args:
            images_B3HW: As for `forward_tokens`.
            taps: 0-based, ascending.

        Raises:
            ValueError: If the image size does not fit the patch size, or a tap does not exist.
        """
        ...

    def map_channels(self, taps: Sequence[int]) -> list[int]:
        """D of each map of `forward_maps`."""
        ...

    def map_strides(self, taps: Sequence[int]) -> list[int]:
        """Input pixels per position of each map of `forward_maps`."""
        ...


def check_taps(taps: Sequence[int], spec: BackboneSpec) -> None:
    """Raise ValueError unless the taps are ascending block indices of this backbone."""
    ascending = len(taps) > 0 and list(taps) == sorted(set(taps))
    if not ascending or taps[0] < 0 or taps[-1] >= spec.num_blocks:
        raise ValueError(
            f"taps {list(taps)} are not ascending indices of this {spec.family}'s {spec.num_blocks} blocks or stages "
            f"(0 to {spec.num_blocks - 1})"
        )
