"""The vision transformer: timm's blocks under timm's names, with DINO's position interpolation.

Shapes: B images, D channels, H x W pixels, h x w patches, N = h*w patches, C = CLS token (if any) and registers.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.base import PlainViT, timm_arguments
from backbones.spec import MLPKind, PositionRule, ViTSpec

# DINO adds this to the number of patches before it computes the scale of the position grid, so that rounding cannot lose a
# row; it also moves every sampling point a little. facebookresearch/dino 7c446df, vision_transformer.py.
DINO_GRID_EPSILON = 0.1

INITIAL_DEVIATION = 0.02
INITIAL_LAYER_SCALE = 1e-5  # DINOv2's value; training moves it

_MLP_LAYERS: dict[MLPKind, Callable[..., nn.Module]] = {"gelu": Mlp, "swiglu": SwiGLUPacked}
_ACTIVATIONS: dict[MLPKind, type[nn.Module]] = {"gelu": nn.GELU, "swiglu": nn.SiLU}


def resize_positions_like_dino(positions_1ND: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample a square grid of position embeddings [1, N, D] to (h, w) by bicubic interpolation with DINO's scale factor.

    timm resizes to an exact size with antialiasing instead; the features then differ by up to 1.5e-2 at 480 x 832.

    Returns:
        [1, h*w, D]; the input itself where the grid is already the wanted one. The two other rules do the same.
    """
    # The result is the floor of the scaled size: 0.1 patch more than wanted yields exactly (h, w).
    return _resample(positions_1ND, grid, lambda side: {"scale_factor": [(count + DINO_GRID_EPSILON) / side for count in grid]})


def resize_positions_to_size(positions_1ND: Tensor, grid: tuple[int, int]) -> Tensor:
    """The same to an exact size, without antialiasing.

    mmseg's rule, and so that of the published ADE20K runs. DINO's scale factor moves the sampling points a little.
    """
    return _resample(positions_1ND, grid, lambda side: {"size": grid})


def resize_positions_antialiased(positions_1ND: Tensor, grid: tuple[int, int]) -> Tensor:
    """The same to an exact size, with antialiasing.

    The rule of DINOv2's models with registers (facebookresearch/dinov2, `interpolate_antialias` and an offset of 0 in
    `dinov2/hub/backbones.py`) and of timm.
    """
    return _resample(positions_1ND, grid, lambda side: {"size": grid, "antialias": True})


def _resample(positions_1ND: Tensor, grid: tuple[int, int], target: Callable[[int], dict[str, Any]]) -> Tensor:
    """Bicubic interpolation of a square grid; `target` gives interpolate's size argument from the grid's side."""
    side = round(positions_1ND.shape[1] ** 0.5)
    if grid == (side, side):
        return positions_1ND
    positions_1Dss = positions_1ND.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    positions_1Dhw = F.interpolate(positions_1Dss, mode="bicubic", align_corners=False, **target(side))
    assert positions_1Dhw.shape[-2:] == grid
    return positions_1Dhw.flatten(2).transpose(1, 2)


POSITION_RULES: dict[PositionRule, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "dino": resize_positions_like_dino,
    "antialias": resize_positions_antialiased,
}
"""The rules that `ViTSpec.position_rule` names."""


class ViT(PlainViT, VisionTransformer):
    """A ViT with or without CLS token, registers and final norm, for any input size that the patch size divides.

    Initialised as DINO does (facebookresearch/dino 7c446df): linear layers, positions and CLS token from a normal distribution of
    deviation 0.02 truncated at +-2, biases zero, the patch projection as PyTorch's convolution. timm's CLS deviation is 1e-6.
    """

    spec: ViTSpec

    def __init__(self, spec: ViTSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            **timm_arguments(spec, drop_path_rate, norm_epsilon=1e-6),
            img_size=spec.image_size,
            mlp_ratio=spec.mlp_ratio,
            class_token=spec.class_token,
            final_norm=spec.final_norm,
            no_embed_class=spec.num_prefix_positions == 0,
            reg_tokens=spec.register_tokens,
            init_values=INITIAL_LAYER_SCALE if spec.layer_scale else None,
            mlp_layer=_MLP_LAYERS[spec.mlp],
            act_layer=_ACTIVATIONS[spec.mlp],
        )
        self.spec = spec
        self.resize_positions = POSITION_RULES[spec.position_rule]
        nn.init.trunc_normal_(self.pos_embed, std=INITIAL_DEVIATION)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=INITIAL_DEVIATION)
        if self.reg_token is not None:
            nn.init.trunc_normal_(self.reg_token, std=INITIAL_DEVIATION)

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """CLS token, registers and patches [B, C+N, D], positions added."""
        grid = self._grid(images_B3HW)
        tokens_BND = self.patch_embed.proj(images_B3HW).flatten(2).transpose(1, 2)
        prefix = self.spec.num_prefix_positions
        tokens_BND = tokens_BND + self.resize_positions(self.pos_embed[:, prefix:], grid)
        before: list[Tensor] = []
        if self.cls_token is not None:
            before.append(self.cls_token + self.pos_embed[:, :1] if prefix else self.cls_token)
        if self.reg_token is not None:
            before.append(self.reg_token)
        return torch.cat([*(token.expand(len(tokens_BND), -1, -1) for token in before), tokens_BND], dim=1), {}
