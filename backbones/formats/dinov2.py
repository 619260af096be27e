"""DINOv2's ViTs (facebookresearch/dinov2, dinov2/models/vision_transformer.py and dinov2/train/ssl_meta_arch.py).

The released backbones are bare state dicts; `teacher_checkpoint.pth` of a training run is `{teacher}` with `backbone.`, `dino_head.`
and `ibot_head.`, and may number its blocks within chunks (`blocks.CHUNK.N`, N counted over the whole network). Patch size 14 with
positions for 518 pixels, LayerScale, a gated MLP in the giant model, and in some models four register tokens, which have no
positions: as in timm, the CLS token's own is added to it, so that only the patches' are left. Without registers the
positions are resampled by DINO's rule, with registers antialiased.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.architecture import vit_spec
from backbones.formats.base import Conversion, FormatError, weights_under
from backbones.formats.keys import KeyTable, apply_table, dropped, prefixed

NAME = "dinov2"
TYPICAL = "register_tokens"
BRANCHES = ("teacher",)
LICENCE = "Apache-2.0"  # of the authors' repository
_BLOCK: KeyTable = {
    "norm1.*": "norm1.*",
    "attn.qkv.*": "attn.qkv.*",
    "attn.proj.*": "attn.proj.*",
    "ls1.gamma": "ls1.gamma",
    "norm2.*": "norm2.*",
    "mlp.fc1.*": "mlp.fc1.*",
    "mlp.fc2.*": "mlp.fc2.*",
    "mlp.w12.*": "mlp.fc1.*",
    "mlp.w3.*": "mlp.fc2.*",
    "ls2.gamma": "ls2.gamma",
}
_KEYS: KeyTable = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "register_tokens": "reg_token",
    "mask_token": None,  # stands for masked patches in training only
    "patch_embed.proj.weight": "patch_embed.proj.weight",
    "patch_embed.proj.bias": "patch_embed.proj.bias",
    **{f"blocks.{{i}}.{source}": f"blocks.{{i}}.{target}" for source, target in _BLOCK.items()},
    **{f"blocks.{{i}}.{{j}}.{source}": f"blocks.{{j}}.{target}" for source, target in _BLOCK.items()},
    "norm.*": "norm.*",
}
_HEADS = dropped("dino_head.*", "ibot_head.*")


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT with a mask token, bare or in a teacher, that has positions and no decoder."""
    weights, prefix = _weights(checkpoint)
    return {f"{prefix}mask_token", f"{prefix}pos_embed", f"{prefix}patch_embed.proj.weight"} <= set(
        weights
    ) and "decoder_embed.weight" not in weights


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    weights, prefix = _weights(checkpoint)
    state_dict, left_out = apply_table(weights, {**_HEADS, **prefixed(prefix, _KEYS)})
    if "norm.weight" not in state_dict or "cls_token" not in state_dict:
        raise FormatError("incomplete checkpoint, a DINOv2 has cls_token and norm.weight")
    state_dict = positions_like_timm(state_dict)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=vit_spec(state_dict, num_heads),
        state_dict=state_dict,
        dropped=left_out,
        epoch=-1,
    )


def positions_like_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where there are registers, add the CLS token's position to the token and keep only those of the patches.

    Args:
        state_dict: timm's names; `cls_token` [1, 1, D], `pos_embed` [1, 1 + N, D].

    Raises:
        FormatError: If the two tensors do not fit each other.
    """
    if "reg_token" not in state_dict:
        return dict(state_dict)
    cls_11D, positions_1ND = (state_dict.get(name) for name in ("cls_token", "pos_embed"))
    if cls_11D is None or positions_1ND is None or positions_1ND.ndim != 3 or cls_11D.shape != positions_1ND[:, :1].shape:
        raise FormatError("cls_token and the first of the positions pos_embed are missing or differ in shape")
    merged = {"cls_token": cls_11D + positions_1ND[:, :1], "pos_embed": positions_1ND[:, 1:]}
    return {**state_dict, **merged}


def _weights(checkpoint: Any) -> tuple[Mapping[str, Tensor], str]:
    teacher = weights_under(checkpoint, "teacher")
    return (teacher, "backbone.") if teacher else (weights_under(checkpoint, "", "model", "state_dict"), "")
