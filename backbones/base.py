"""The two questions that every backbone answers, and which images and taps it takes.

Shapes: B images, D channels, L features for a classifier, H x W pixels, h x w patches or positions, N = h*w.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from backbones.spec import BackboneSpec, ForeignSpec, FunctionSpec, ResNetSpec, SwinSpec, TimmSpec


class Tokens(NamedTuple):
    """The outcome of the whole network for one batch."""

    cls: Tensor | None  # [B, D], or None where the backbone has no CLS token.
    patches: Tensor
    """[B, N, D], row-major over the grid. Of a Swin or a ResNet these are the positions of the last stage."""
    grid: tuple[int, int]  # (h, w) with h * w == N.
    pooled: Tensor | None = None  # [B, L]: what a network of timm hands to its classifier; None for our own.


class Backbone:
    """Mixed into one of timm's networks; before it, so that these methods are the ones called. Weights keep timm's names."""

    spec: BackboneSpec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        """Features after the last block and, where the spec has one, the final norm.

        Images are float, normalised with the ImageNet mean and deviation, of any size that the patch size (a Swin's last stride)
        divides; ValueError for other sizes.
        """
        raise NotImplementedError

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Features [B, D, h, w] after each tapped block (ViT) or stage (Swin, ResNet), without the final norm.

        Images are those of `forward_tokens`. Taps are 0-based and ascending; ValueError if one does not exist.
        """
        raise NotImplementedError

    def forward(self, images_B3HW: Tensor) -> Tokens:
        """`forward_tokens`, so that wrappers such as DistributedDataParallel and torch.compile can call the module."""
        return self.forward_tokens(images_B3HW)

    def map_channels(self, taps: Sequence[int]) -> list[int]:
        """D of each map of `forward_maps`."""
        return [tap_shape(self.spec, tap)[0] for tap in taps]

    def map_strides(self, taps: Sequence[int]) -> list[int]:
        """Input pixels per position of each map of `forward_maps`."""
        return [tap_shape(self.spec, tap)[1] for tap in taps]


def map_as_tokens(last_BDhw: Tensor, pooled_BL: Tensor | None = None) -> Tokens:
    """The tokens of a network that has maps instead, by its last one."""
    _, _, h, w = last_BDhw.shape
    return Tokens(None, last_BDhw.flatten(2).transpose(1, 2), (h, w), pooled_BL)


def tap_shape(spec: BackboneSpec, tap: int) -> tuple[int, int]:
    """Channels, and input pixels per position, after a block or stage."""
    match spec:
        case TimmSpec() | FunctionSpec():
            return spec.channels[tap], spec.strides[tap]
        case SwinSpec():
            return spec.embed_dim * 2**tap, spec.patch_size * 2**tap
        case ResNetSpec():
            return 256 * 2**tap, 4 * 2**tap
        case _:
            return spec.embed_dim, spec.patch_size


def input_multiple(spec: BackboneSpec) -> int:
    """What the sides of an input are multiples of; a network that takes one size only has that."""
    if isinstance(spec, ForeignSpec):
        return spec.size_step or spec.image_size
    return max(tap_shape(spec, tap)[1] for tap in range(spec.num_blocks))


def check_size(spec: BackboneSpec, height: int, width: int) -> None:
    """Raise ValueError unless the network takes images of this size."""
    step = input_multiple(spec)
    has_step = height > 0 and width > 0 and height % step == 0 and width % step == 0
    shown = f"image size {height} x {width}"
    if isinstance(spec, ForeignSpec):
        is_own = height == width == spec.image_size
        if not is_own and not (spec.size_step and has_step):
            wanted = f"a multiple of {step}" if spec.size_step else f"{step} x {step}, the only size that it takes"
            raise ValueError(f"{shown}: {spec.name} takes {wanted}")
    elif not has_step and not isinstance(spec, ResNetSpec):
        what = "this Swin's stride" if isinstance(spec, SwinSpec) else "the patch size"
        raise ValueError(f"{shown} is not a multiple of {what} {step}")


def check_taps(taps: Sequence[int], spec: BackboneSpec) -> None:
    """Raise ValueError unless the taps are ascending block indices of this backbone."""
    ascending = len(taps) > 0 and list(taps) == sorted(set(taps))
    if not ascending or taps[0] < 0 or taps[-1] >= spec.num_blocks:
        raise ValueError(
            f"taps {list(taps)} are not ascending indices of this {spec.family}'s {spec.num_blocks} blocks or stages "
            f"(0 to {spec.num_blocks - 1})"
        )
