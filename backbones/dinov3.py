"""DINOv3's vision transformer: timm's `Eva` behind the interface of `backbones.base`.

Queries and keys of the patches are rotated by the patches' coordinates (RoPE); nothing is added to the tokens, and CLS token and
registers are not rotated. Coordinates are those of the patches' centres, each axis on its own from -1 to 1 over the image, so that
every size has the same range and nothing is interpolated. Channel i of the first quarter of a head turns with the row, i of the
second with the column, by 2 pi coordinate / period i, the last half being the other components of the same pairs. Source:
facebookresearch/dinov3 6876159a, dinov3/layers/rope_position_encoding.py and attention.py.

Training there also rescales the coordinates at random; fine-tuning here does not.

Shapes: B images, D channels, H x W pixels, h x w patches, N = h*w patches, T = CLS token, registers and patches.
"""

from typing import Any

from timm.layers import RotaryEmbeddingDinoV3
from timm.models.eva import Eva
from torch import Tensor

from backbones.base import PlainViT, timm_arguments
from backbones.spec import DINOv3Spec

ROPE_BASE = 100.0  # Periods are this to the powers 0, 1/n, ... (n-1)/n, n being a quarter of a head's width.
INITIAL_LAYER_SCALE = 1e-5


def computed_periods(head_dim: int) -> Tensor:
    """The rotary periods [head_dim / 4] in float32, as timm and Hugging Face compute them."""
    return RotaryEmbeddingDinoV3(dim=head_dim, temperature=ROPE_BASE).periods


class DINOv3(PlainViT, Eva):
    """A DINOv3 ViT for any input size that the patch size divides.

    The rotary periods are a stored buffer, unlike timm's: the released files hold periods that were rounded to bfloat16, and the
    authors' code computes with those. Files that hold none get timm's.
    """

    spec: DINOv3Spec

    def __init__(self, spec: DINOv3Spec, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            **timm_arguments(spec, drop_path_rate, norm_epsilon=1e-5),  # `layernormbf16`, which all released models have
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
        """CLS token, registers and patches [B, T, D], and the patches' rotations [N, 2 * width of a head]."""
        self._grid(images_B3HW)
        tokens_BTD, rotations = self._pos_embed(self.patch_embed(images_B3HW))
        return tokens_BTD, {"rope": rotations}
