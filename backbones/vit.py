"""The vision transformer: timm's blocks under timm's names, with DINO's position interpolation.

Shapes: B images, D channels, H x W pixels, h x w patches, N = h*w patches, C = CLS token (if any) and registers.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import Mlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.base import PlainViT, timm_arguments
from backbones.spec import PositionRule, ViTSpec

INITIAL_DEVIATION = 0.02
INITIAL_LAYER_SCALE = 1e-5  # DINOv2's value; training moves it

# DINO adds this to the number of patches before it computes the scale of the position grid, so that rounding cannot lose a
# row; it also moves every sampling point a little. facebookresearch/dino 7c446df, vision_transformer.py.
_DINO_GRID_EPSILON = 0.1


def resize_positions(positions_1ND: Tensor, grid: tuple[int, int], rule: PositionRule | Literal["size"]) -> Tensor:
    """Resample a square grid of position embeddings [1, N, D] to [1, h*w, D] by bicubic interpolation, unless it has that size.

    - `dino`: by DINO's scale factor. timm's rule gives features that differ from it by up to 1.5e-2 at 480 x 832.
    - `size`: to the exact size, without antialiasing. mmseg's rule, and so that of the published ADE20K runs.
    - `antialias`: to the exact size, with antialiasing. The rule of timm and of DINOv2's models with registers
      (facebookresearch/dinov2, `interpolate_antialias` and an offset of 0 in `dinov2/hub/backbones.py`).
    """
    side = round(positions_1ND.shape[1] ** 0.5)
    if grid == (side, side):
        return positions_1ND
    # The result of scaling is the floor of the scaled size: 0.1 patch more than wanted yields exactly (h, w).
    scales = [(count + _DINO_GRID_EPSILON) / side for count in grid]
    target: dict[str, Any] = {"scale_factor": scales} if rule == "dino" else {"size": grid, "antialias": rule == "antialias"}
    positions_1Dss = positions_1ND.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    positions_1Dhw = F.interpolate(positions_1Dss, mode="bicubic", align_corners=False, **target)
    assert positions_1Dhw.shape[-2:] == grid
    return positions_1Dhw.flatten(2).transpose(1, 2)


class ViT(PlainViT, VisionTransformer):
    """A ViT with or without CLS token, registers and final norm, for any input size that the patch size divides.

    Initialised as DINO does (facebookresearch/dino 7c446df): linear layers, positions and CLS token from a normal distribution of
    deviation 0.02 truncated at +-2, biases zero, the patch projection as PyTorch's convolution. timm's CLS deviation is 1e-6.
    """

    spec: ViTSpec

    def __init__(self, spec: ViTSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            **timm_arguments(spec, drop_path_rate, norm_epsilon=spec.norm_epsilon),
            img_size=spec.image_size,
            mlp_ratio=spec.mlp_ratio,
            class_token=spec.class_token,
            final_norm=spec.final_norm,
            no_embed_class=spec.num_prefix_positions == 0,
            reg_tokens=spec.register_tokens,
            init_values=INITIAL_LAYER_SCALE if spec.layer_scale else None,
            mlp_layer=SwiGLUPacked if spec.mlp == "swiglu" else Mlp,
            act_layer=nn.SiLU if spec.mlp == "swiglu" else nn.GELU,
        )
        self.spec = spec
        self.position_rule: PositionRule | Literal["size"] = spec.position_rule
        for parameter in (self.pos_embed, self.cls_token, self.reg_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=INITIAL_DEVIATION)

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """CLS token, registers and patches [B, C+N, D], positions added."""
        grid = self._grid(images_B3HW)
        tokens_BND = self.patch_embed.proj(images_B3HW).flatten(2).transpose(1, 2)
        prefix = self.spec.num_prefix_positions
        tokens_BND = tokens_BND + resize_positions(self.pos_embed[:, prefix:], grid, self.position_rule)
        cls_11D = self.cls_token + self.pos_embed[:, :1] if prefix else self.cls_token
        before = [token for token in (cls_11D, self.reg_token) if token is not None]
        return torch.cat([*(token.expand(len(tokens_BND), -1, -1) for token in before), tokens_BND], dim=1), {}
