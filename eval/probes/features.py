"""Feature maps of frozen backbones.

Shapes: B images, D channels, H x W pixels, h x w patches or positions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.base import check_size, input_multiple
from backbones.build import AnyBackbone
from backbones.spec import BackboneSpec, ForeignSpec, PlainViTSpec, ResNetSpec
from backbones.vit import PlainViT
from common.distributed import full_float32


def check_blocks(blocks: Sequence[int], normalised: bool, spec: BackboneSpec) -> None:
    """ValueError unless a backbone of this spec has these blocks' maps, 0-based and ascending; no blocks stand for the last one."""
    last = spec.num_blocks - 1
    if list(blocks) != sorted(set(blocks)) or any(not 0 <= block <= last for block in blocks):
        raise ValueError(f"layers={list(blocks)}: give ascending numbers of this {spec.family}'s blocks or stages, 0 to {last}")
    if normalised and not isinstance(spec, PlainViTSpec) and any(block != last for block in blocks):
        raise ValueError(f"layers={list(blocks)}: a {spec.family}'s final norm fits its last map only; leave layers out")


def check_input(spec: BackboneSpec, side: int | None) -> None:
    """ValueError unless a backbone takes squares of this side, or, where that is None, padded images of many sizes."""
    if not isinstance(spec, ForeignSpec):
        return
    if side is not None:
        check_size(spec, side, side)
    elif not spec.size_step:
        only = f"{spec.image_size} x {spec.image_size} pixels"
        raise ValueError(f"{spec.name} takes images of {only} only; this protocol has images of many sizes")


def fills_patch(size: tuple[int, int], side: int, scale: float, spec: BackboneSpec) -> bool:
    """Whether an image of this (width, height) still fills a patch, once no side is longer than `side` and it is scaled."""
    if isinstance(spec, ResNetSpec):
        return True
    multiple = input_multiple(spec)
    if min(size) * min(1, side / max(size)) * scale >= multiple + 1:  # a million images need no thumbnail
        return True
    image = Image.new("1", size)
    image.thumbnail((side, side))  # rounds as the network's input is rounded
    return int(min(image.size) * scale) >= multiple


class FrozenFeatures:
    """Maps of chosen blocks of a backbone that is never trained: gradients off, evaluation mode, float32 results.

    `normalised`: the backbone's final norm is applied to every map. With `autocast`, the network computes in that dtype.
    """

    def __init__(
        self,
        backbone: AnyBackbone,
        device: torch.device,
        blocks: Sequence[int] = (),
        normalised: bool = True,
        autocast: torch.dtype | None = None,
    ) -> None:
        check_blocks(blocks, normalised, backbone.spec)
        self.backbone = backbone.to(device).eval().requires_grad_(False)
        self.device, self.normalised, self.autocast = device, normalised, autocast
        self.blocks = list(blocks) or [backbone.spec.num_blocks - 1]
        self.channels = self.backbone.map_channels(self.blocks)
        self.multiple = input_multiple(backbone.spec)

    @torch.no_grad()
    @full_float32()
    def __call__(self, images_B3HW: Tensor) -> list[Tensor]:
        """A map [B, D, h, w] for each block, on the device, of images that are normalised with ImageNet's mean and deviation."""
        images_B3HW = images_B3HW.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            maps = [map_BDhw.float() for map_BDhw in self._maps(images_B3HW)]
        if not all(bool(map_BDhw.isfinite().all()) for map_BDhw in maps):  # a metric of NaN would mean nothing
            raise ValueError("the backbone's features are not finite; its weights are damaged")
        return maps

    def _maps(self, images_B3HW: Tensor) -> list[Tensor]:
        if self.normalised and self.blocks == [self.backbone.spec.num_blocks - 1]:
            tokens = self.backbone.forward_tokens(images_B3HW)
            return [tokens.patches.transpose(1, 2).unflatten(2, tokens.grid)]
        maps = self.backbone.forward_maps(images_B3HW, self.blocks)
        if not self.normalised:
            return maps
        assert isinstance(self.backbone, PlainViT)
        return [self.backbone.norm(map_BDhw.movedim(1, 3)).movedim(3, 1) for map_BDhw in maps]


def centre_pad(images_BCHW: Tensor, multiple: int) -> Tensor:
    """Zeros around images, so that both sides are multiples; where the number is odd, the smaller half comes first."""
    height, width = images_BCHW.shape[-2:]
    rows, columns = -height % multiple, -width % multiple
    return F.pad(images_BCHW, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
