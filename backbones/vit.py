"""Vision transformers: timm's under timm's names, with DINO's position interpolation, and DINOv3's with rotary positions.

Shapes: B images, D channels, H x W pixels, h x w patches, N = h*w patches, C = CLS token (if any) and registers, T = C + N.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import Mlp, RotaryEmbeddingDinoV3, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.base import Backbone, Tokens, check_size, check_taps
from backbones.spec import DINOv3Spec, PlainViTSpec, PositionRule, ViTSpec

INITIAL_DEVIATION = 0.02
INITIAL_LAYER_SCALE = 1e-5  # DINOv2's and DINOv3's value; training moves it
ROPE_BASE = 100.0  # DINOv3's periods are this to the powers 0, 1/n, ... (n-1)/n, n being a quarter of a head's width.

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


class PlainViT(Backbone):
    """A vision transformer whose blocks all have one width and one stride."""

    spec: PlainViTSpec
    num_prefix_tokens: int
    blocks: Any
    norm: Any

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        tokens_BTD, options = self._embed(images_B3HW)
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, **options)
        tokens_BTD = self.norm(tokens_BTD)
        cls_BD = tokens_BTD[:, 0] if self.spec.class_token else None
        return Tokens(cls_BD, tokens_BTD[:, self.num_prefix_tokens :], self._grid(images_B3HW))

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        check_taps(taps, self.spec)
        tokens_BTD, options = self._embed(images_B3HW)
        maps = []
        for index, block in enumerate(self.blocks[: taps[-1] + 1]):
            tokens_BTD = block(tokens_BTD, **options)
            if index in taps:
                patches_BND = tokens_BTD[:, self.num_prefix_tokens :]
                maps.append(patches_BND.transpose(1, 2).unflatten(2, self._grid(images_B3HW)))
        return maps

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The first block's tokens [B, T, D], and what every block is called with beside its tokens."""
        raise NotImplementedError

    def _grid(self, images_B3HW: Tensor) -> tuple[int, int]:
        """The patches' (h, w); ValueError for a size that they do not divide."""
        height, width = images_B3HW.shape[-2:]
        check_size(self.spec, height, width)
        return height // self.spec.patch_size, width // self.spec.patch_size


def _timm_arguments(spec: PlainViTSpec, drop_path_rate: float, norm_epsilon: float) -> dict[str, Any]:
    """What timm's two vision transformers are built with alike; the drop path rate grows linearly from 0 to this one."""
    return {
        "patch_size": spec.patch_size,
        "num_classes": 0,
        "global_pool": "",
        "embed_dim": spec.embed_dim,
        "depth": spec.depth,
        "num_heads": spec.num_heads,
        "dynamic_img_size": True,
        "drop_path_rate": drop_path_rate,
        "norm_layer": partial(nn.LayerNorm, eps=norm_epsilon),
    }


class ViT(PlainViT, VisionTransformer):
    """A ViT with or without CLS token, registers and final norm, for any input size that the patch size divides.

    Initialised as DINO does (facebookresearch/dino 7c446df): linear layers, positions and CLS token from a normal distribution of
    deviation 0.02 truncated at +-2, biases zero, the patch projection as PyTorch's convolution. timm's CLS deviation is 1e-6.
    """

    spec: ViTSpec

    def __init__(self, spec: ViTSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            **_timm_arguments(spec, drop_path_rate, norm_epsilon=spec.norm_epsilon),
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
        grid = self._grid(images_B3HW)
        tokens_BND = self.patch_embed.proj(images_B3HW).flatten(2).transpose(1, 2)
        prefix = self.spec.num_prefix_positions
        tokens_BND = tokens_BND + resize_positions(self.pos_embed[:, prefix:], grid, self.position_rule)
        cls_11D = self.cls_token + self.pos_embed[:, :1] if prefix else self.cls_token
        before = [token for token in (cls_11D, self.reg_token) if token is not None]
        return torch.cat([*(token.expand(len(tokens_BND), -1, -1) for token in before), tokens_BND], dim=1), {}


def computed_periods(head_dim: int) -> Tensor:
    """The rotary periods [head_dim / 4] in float32, as timm and Hugging Face compute them."""
    return RotaryEmbeddingDinoV3(dim=head_dim, temperature=ROPE_BASE).periods


class DINOv3(PlainViT, Eva):
    """A DINOv3 ViT for any input size that the patch size divides.

    Queries and keys of the patches are rotated by the patches' coordinates (RoPE); nothing is added to the tokens, and CLS token and
    registers are not rotated. Coordinates are those of the patches' centres, each axis on its own from -1 to 1 over the image, so
    that nothing is interpolated. Channel i of the first quarter of a head turns with the row, i of the second with the column, by
    2 pi coordinate / period i, the last half being the other components of the same pairs. Source: facebookresearch/dinov3 6876159a,
    dinov3/layers/rope_position_encoding.py and attention.py; training there also rescales the coordinates at random.

    The rotary periods are a stored buffer, unlike timm's: the released files hold periods that were rounded to bfloat16, and the
    authors' code computes with those. Files that hold none get timm's.
    """

    spec: DINOv3Spec

    def __init__(self, spec: DINOv3Spec, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            **_timm_arguments(spec, drop_path_rate, norm_epsilon=1e-5),  # `layernormbf16`, which all released models have
            qkv_bias=spec.query_value_bias,
            mlp_ratio=(spec.hidden_dim + 0.5) / spec.embed_dim,  # timm multiplies and truncates
            swiglu_mlp=spec.mlp == "swiglu",
            swiglu_align_to=1,  # separate gate and value, as in the published files, of exactly this width
            init_values=INITIAL_LAYER_SCALE,
            num_reg_tokens=spec.register_tokens,
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type="dinov3",
            rope_temperature=ROPE_BASE,
            rope_rotate_half=True,
        )
        self.spec = spec
        self.rope.register_buffer("periods", self.rope.periods, persistent=True)

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, dict[str, Any]]:
        self._grid(images_B3HW)
        tokens_BTD, rotations = self._pos_embed(self.patch_embed(images_B3HW))
        return tokens_BTD, {"rope": rotations}
