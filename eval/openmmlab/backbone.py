"""The backbone of a backbone file as an OpenMMLab module, registered for mmdet and mmseg alike, and the pyramid of detection.

Shapes: B images, D channels, H x W pixels, h x w positions.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from backbones.base import check_taps, input_multiple, tap_shape
from backbones.build import AnyBackbone, network_of
from backbones.file import BackboneFile, read_backbone_file
from backbones.spec import BackboneSpec, ForeignSpec, PlainViTSpec, ViTSpec, architecture_name, spec_to_dict
from backbones.vit import ViT, resize_positions

PositionResize = Literal["dino", "size"]
"""How a ViT's position embeddings follow the input size: DINO's scale factor with its +0.1, or bicubic to the exact size."""

PUBLISHED_DEPTH = 12  # blocks of the ViT-S and ViT-Ti for which the published taps are meant
PYRAMID_STRIDES = (4, 8, 16, 32)  # input pixels per position of the detection pyramid's four maps
PLAIN_STRIDES = (8, 16)  # of the networks with maps of one stride for which heads and pyramids are published
_MAP_NORM_EPS = 1e-5  # nn.LayerNorm's, which Swin's dense-prediction code uses


def adapted_spec(spec: BackboneSpec, num_heads: int | None, class_token: bool) -> BackboneSpec:
    """The spec with another number of attention heads, or without its CLS token, where asked for; ValueError where it cannot be."""
    if num_heads is not None:
        if not isinstance(spec, ViTSpec):
            raise ValueError(f"num_heads={num_heads} can be chosen for a ViT only; this backbone is a {spec.family}")
        spec = dataclasses.replace(spec, num_heads=num_heads)
    if not class_token:
        if not isinstance(spec, ViTSpec) or not spec.class_token or spec.register_tokens:
            kind = f"{spec.family} without a CLS token" if isinstance(spec, ViTSpec) and not spec.class_token else spec.family
            raise ValueError(f"--no-class-token leaves out the CLS token of a ViT without registers; this backbone is a {kind}")
        spec = dataclasses.replace(spec, class_token=False)
    return spec


def plain_stride(spec: BackboneSpec) -> int | None:
    """Input pixels per position of every map of a backbone whose maps all have one stride; None for others."""
    strides = {tap_shape(spec, tap)[1] for tap in range(spec.num_blocks)}
    return strides.pop() if len(strides) == 1 and isinstance(spec, PlainViTSpec | ForeignSpec) else None


def choose_strides(spec: BackboneSpec, taps: Sequence[int]) -> list[int] | None:
    """The strides to which the maps of these taps are resampled, or None where they are as the published necks expect them.

    Maps of one stride come to 16, unless it is 8; four others to `PYRAMID_STRIDES`.
    """
    plain = plain_stride(spec)
    if plain is not None:
        return None if plain in PLAIN_STRIDES else [PLAIN_STRIDES[-1]] * len(taps)
    own = [tap_shape(spec, tap)[1] for tap in taps]
    return list(PYRAMID_STRIDES) if isinstance(spec, ForeignSpec) and own != list(PYRAMID_STRIDES) else None


def _taps_of_foreign(spec: ForeignSpec, published: Sequence[int]) -> list[int]:
    """The same parts of the depth where all maps have one stride, else the deepest map of each of `PYRAMID_STRIDES`, or the nearest.

    A map may come several times.
    """
    if plain_stride(spec) is not None:
        return [max(0, round((tap + 1) * spec.num_blocks / PUBLISHED_DEPTH) - 1) for tap in published]
    taps = []
    for wanted in PYRAMID_STRIDES:
        distances = [abs(math.log2(stride / wanted)) for stride in spec.strides]
        taps.append(max(tap for tap, distance in enumerate(distances) if distance == min(distances)))
    return taps


def choose_taps(chosen: Sequence[int] | None, published: Sequence[int], spec: BackboneSpec) -> list[int]:
    """The user's taps, or else the published ones; those of a ViT move to the same parts of another depth.

    Taps are 0-based and ascending; the published ones are blocks of `PUBLISHED_DEPTH`, or the stages of a Swin or ResNet. A network
    that is none of ours may have fewer maps than the task takes, of which some then serve twice.
    """
    if chosen is None and isinstance(spec, ForeignSpec):
        return _taps_of_foreign(spec, published)
    if chosen is None and spec.num_blocks < len(published):
        raise ValueError(
            f"this {spec.family} has {spec.num_blocks} blocks or stages, fewer than the {len(published)} maps that the task takes"
        )
    taps = list(published if chosen is None else chosen)
    if chosen is None and isinstance(spec, PlainViTSpec):
        taps = [round((tap + 1) * spec.depth / PUBLISHED_DEPTH) - 1 for tap in published]
    try:
        check_taps(taps, spec)
    except ValueError as error:
        raise ValueError(f"{error}; choose {len(published)} others with --taps") from error
    return taps


@MODELS.register_module()
class BackboneFromFile(BaseModule):
    """A backbone with the weights of a backbone file; gives one map per tap, optionally through the detection pyramid.

    Parameter names are `network.` + timm's names, `pyramid.` + the pyramid's and `map_norms.` + the place among the taps. Parameters
    that no tapped map depends on (the final norm, blocks after the last tap) are frozen, so that DistributedDataParallel does not
    wait for their gradients.

    Inputs whose size the backbone's stride does not divide are padded with zeros at the bottom and right (images are normalised
    before, so zero is the mean colour), as mmseg's patch embedding does.
    """

    def __init__(
        self,
        backbone_file: str,
        taps: Sequence[int],
        drop_path_rate: float = 0.0,
        num_heads: int | None = None,
        class_token: bool = True,
        position_resize: PositionResize = "dino",
        position_image_size: int | None = None,
        deconv_pyramid: bool = False,
        compile: bool = False,
        norm_maps: bool = False,
        sync_batch_norm: bool = False,
        strides: Sequence[int] | None = None,
    ) -> None:
        """Build the network and load its weights strictly.

        Args:
            backbone_file: Path of the backbone file.
            taps: 0-based indices of the blocks (ViT) or stages (Swin, ResNet) whose outputs are the maps, ascending.
            drop_path_rate: Stochastic depth of the last block, in [0, 1).
            num_heads: Attention heads instead of those that the file states (ViT only). Weights fit any number that divides the
                width, but attention is computed differently: only for reproducing runs that were fine-tuned so.
            class_token: Keeps the CLS token that a ViT has; without it, patches attend to each other alone, as in the released
                fine-tuning backbones.
            position_resize: How position embeddings follow the input size (ViT only).
            position_image_size: Side of an image to whose grid the stored position embeddings are resized at loading (ViT only).
            deconv_pyramid: Makes strides 4 to 32 of four equally large maps (ViT and DINOv3 only).
            compile: Runs the network through torch.compile; sizes may vary.
            norm_maps: Puts a new LayerNorm over the channels behind every map, as in Swin's dense-prediction code.
            sync_batch_norm: Shares the statistics of the network's batch normalisation between GPUs.
            strides: Input pixels per position to which each map is resampled bilinearly, powers of two; None: as they are.
        """
        super().__init__()
        content = read_backbone_file(Path(backbone_file))
        weights, spec = content.state_dict, adapted_spec(content.spec, num_heads, class_token)
        if isinstance(spec, ViTSpec):
            spec = dataclasses.replace(spec, image_size=position_image_size or spec.image_size)
            weights = _adapted(content, spec, position_resize)
        self.taps, self.strides = list(taps), strides and list(strides)
        self.network = network_of(spec, weights, drop_path_rate).train()
        if isinstance(self.network, ViT):
            self.network.position_rule = position_resize
        if sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.map_channels = self.network.map_channels(self.taps)
        self._input_stride = input_multiple(spec)
        self._forward_maps = torch.compile(self.network.forward_maps, dynamic=True) if compile else self.network.forward_maps
        if deconv_pyramid and len(self.taps) != len(PYRAMID_STRIDES):
            raise ValueError(f"the detection pyramid takes four maps, not the {len(self.taps)} of taps {self.taps}")
        self.pyramid = None
        if deconv_pyramid:
            stride = self.strides[0] if self.strides else plain_stride(spec)
            if stride is None:
                raise ValueError(f"the detection pyramid is for a ViT; a {spec.family} has maps of four strides itself")
            self.pyramid = DeconvPyramid(self.map_channels[0], stride)
        norms = (LayerNorm2d(channels, eps=_MAP_NORM_EPS) for channels in self.map_channels)
        self.map_norms = nn.ModuleList(norms) if norm_maps else None
        _freeze_unused(self.network, self.taps[-1])

    def init_weights(self) -> None:
        """Keep the loaded weights: mmengine's default would call timm's own initialisation and overwrite them."""
        self._is_init = True

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """One map [B, D, h, w] per tap, shallowest first, of images normalised with the ImageNet mean and deviation."""
        height, width = images_B3HW.shape[-2:]
        # What the resampled maps cover.
        covered = [side + -side % max(self.strides or [1]) for side in (height, width)]
        bottom, right = (
            side + -side % self._input_stride - given for side, given in zip(covered, (height, width), strict=True)
        )
        if bottom or right:
            images_B3HW = F.pad(images_B3HW, (0, right, 0, bottom))
        different = sorted(set(self.taps))
        by_tap = dict(zip(different, self._forward_maps(images_B3HW, different), strict=True))
        maps_BDhw = [by_tap[tap] for tap in self.taps]
        if self.strides is not None:
            own = self.network.map_strides(self.taps)
            given = zip(maps_BDhw, own, self.strides, strict=True)
            maps_BDhw = [_resampled(map_BDhw, stride, wanted, covered) for map_BDhw, stride, wanted in given]
        if self.map_norms is not None:
            maps_BDhw = [norm(map_BDhw) for norm, map_BDhw in zip(self.map_norms, maps_BDhw, strict=True)]
        return tuple(maps_BDhw if self.pyramid is None else self.pyramid(maps_BDhw))


def _resampled(map_BDhw: Tensor, stride: int, wanted: int, covered: Sequence[int]) -> Tensor:
    """A map of another stride, a power of two, over so many input pixels; the scale is exact, so that no position moves."""
    if stride != wanted:
        map_BDhw = F.interpolate(map_BDhw, scale_factor=stride / wanted, mode="bilinear", align_corners=False)
    return map_BDhw[..., : covered[0] // wanted, : covered[1] // wanted]


def _adapted(content: BackboneFile, wanted: ViTSpec, rule: PositionResize) -> dict[str, Tensor]:
    """The weights of a ViT on the position grid of another spec, and without the CLS token where that has none."""
    if rule not in get_args(PositionResize):
        raise ValueError(f"position_resize={rule!r}; known: {', '.join(get_args(PositionResize))}")
    stored, positions_1ND = content.spec, content.state_dict["pos_embed"]
    assert isinstance(stored, ViTSpec)
    prefix_1ND, patches_1ND = positions_1ND.tensor_split([stored.num_prefix_positions], dim=1)
    if wanted.image_size != stored.image_size:
        patches_1ND = resize_positions(patches_1ND, (wanted.grid_side, wanted.grid_side), rule)
    positions_1ND = torch.cat([prefix_1ND[:, : wanted.num_prefix_positions], patches_1ND], dim=1)
    kept = {name: value for name, value in content.state_dict.items() if wanted.class_token or name != "cls_token"}
    return {**kept, "pos_embed": positions_1ND}


class DeconvPyramid(nn.Module):
    """XCiT's pyramid, as SelfPatch's detection backbone uses it: each of four equally large maps is resampled to its stride.

    Patch 16: two 2x2 deconvolutions with SyncBN and GELU between them, one deconvolution, the map itself, 2x2 maximum pooling.
    Patch 8: one deconvolution, the map itself, 2x2 and 4x4 maximum pooling. Deconvolutions keep PyTorch's initialisation.
    Source: alinlab/SelfPatch 81aef149, detection/backbone/vit_SelfPatch.py.

    The SyncBN is an ordinary batch norm where there is one process or no GPU (`runner`). No name here contains `norm`, so that the
    published rule that exempts such names from weight decay leaves the SyncBN decayed, as it was. ValueError for a stride for which
    no pyramid is published.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()

        def double() -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

        if stride == PLAIN_STRIDES[-1]:
            quadruple = nn.Sequential(double(), nn.SyncBatchNorm(channels), nn.GELU(), double())
            self.branches = nn.ModuleList([quadruple, double(), nn.Identity(), nn.MaxPool2d(2)])
        elif stride == PLAIN_STRIDES[0]:
            self.branches = nn.ModuleList([double(), nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(4)])
        else:
            raise ValueError(f"the detection pyramid is defined for patch size 16 and 8, not {stride}")

    def forward(self, maps_BDhw: Sequence[Tensor]) -> list[Tensor]:
        """Four maps of D channels with the strides `PYRAMID_STRIDES`, from four maps [B, D, h, w], shallowest first."""
        return [branch(map_BDhw) for branch, map_BDhw in zip(self.branches, maps_BDhw, strict=True)]


def _freeze_unused(network: AnyBackbone, last_tap: int) -> None:
    """Freeze the parameters that get no gradient from the maps up to `last_tap`."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        network.requires_grad_(True)  # a function that froze them all only meant to look at features
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        return
    side = network.spec.image_size if isinstance(network.spec, ForeignSpec) else input_multiple(network.spec)
    with torch.enable_grad():
        maps = network.eval().forward_maps(torch.zeros(1, 3, side, side), range(last_tap + 1))
        total = torch.stack([map_BDhw.sum() for map_BDhw in maps]).sum()
    if not total.requires_grad:
        name = architecture_name(spec_to_dict(network.spec))
        raise ValueError(f"{name} computes its maps without gradients (torch.no_grad?); fine-tuning needs them")
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    network.train()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
