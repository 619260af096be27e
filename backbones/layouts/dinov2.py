"""DINOv2's ViTs, in the authors' files and in Hugging Face's.

Patch size 14 with positions for 518 pixels, LayerScale, a gated MLP in the giant model, and in some models four register tokens,
which have no positions: as in timm, the CLS token's own is added to it, so that only the patches' are left. Without registers the
positions are resampled by DINO's rule, with registers antialiased.
"""

from typing import Any

from backbones.layouts.base import Layout, entry_at
from backbones.layouts.keys import VIT_BLOCK, VIT_KEYS, KeyTable, LayoutError, Weights, join_qkv, nested, same

_GATED_MLP: KeyTable = {"mlp.w12.*": "mlp.fc1.*", "mlp.w3.*": "mlp.fc2.*"}
_KEYS: KeyTable = {
    **VIT_KEYS,
    "register_tokens": "reg_token",
    "mask_token": None,  # stands for masked patches in training only
    **nested("blocks.{i}.", "blocks.{i}.", _GATED_MLP),
    # Training may number its blocks within chunks, N over the whole network.
    **nested("blocks.{i}.{j}.", "blocks.{j}.", {**VIT_BLOCK, **_GATED_MLP}),
}
HUGGINGFACE_LAYERS = ("encoder.layer.", "encoder.layers.", "layers.", "layer.")
"""What precedes a block's number: the first in transformers 4 and in files, one of all in the memory of transformers 5."""
_HUGGINGFACE_BLOCK: KeyTable = {
    **same("norm1.*", "norm2.*", "mlp.fc1.*", "mlp.fc2.*"),
    **nested("attention.attention.", "attn.", same("query.*", "key.*", "value.*")),
    "attention.output.dense.*": "attn.proj.*",
    "layer_scale1.lambda1": "ls1.gamma",
    "mlp.weights_in.*": "mlp.fc1.*",
    "mlp.weights_out.*": "mlp.fc2.*",
    "layer_scale2.lambda1": "ls2.gamma",
    # ViT and ViTMAE
    "layernorm_before.*": "norm1.*",
    "layernorm_after.*": "norm2.*",
    "intermediate.dense.*": "mlp.fc1.*",
    "output.dense.*": "mlp.fc2.*",
    # transformers 5
    **{f"attention.{part[0]}_proj.*": f"attn.{part}.*" for part in ("query", "key", "value")},
    "attention.o_proj.*": "attn.proj.*",
}
HUGGINGFACE_KEYS: dict[str, str | None] = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.mask_token": None,
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    "layernorm.*": "norm.*",
}
for _layer in HUGGINGFACE_LAYERS:
    HUGGINGFACE_KEYS |= nested(f"{_layer}{{i}}.", "blocks.{i}.", _HUGGINGFACE_BLOCK)


def config_heads(checkpoint: Any) -> int | None:
    """The heads in the configuration that lies beside Hugging Face's weights in a folder."""
    heads = entry_at(checkpoint, "config/num_attention_heads")
    return heads if type(heads) is int and heads > 0 else None


def _positions_like_timm(state_dict: Weights) -> Weights:
    """Where there are registers, add the CLS token's position to the token and keep only those of the patches."""
    if "reg_token" not in state_dict:
        return state_dict
    cls_11D, positions_1ND = (state_dict.get(name) for name in ("cls_token", "pos_embed"))
    if cls_11D is None or positions_1ND is None or positions_1ND.ndim != 3 or cls_11D.shape != positions_1ND[:, :1].shape:
        raise LayoutError("cls_token and the first of the positions pos_embed are missing or differ in shape")
    return {**state_dict, "cls_token": cls_11D + positions_1ND[:, :1], "pos_embed": positions_1ND[:, 1:]}


# facebookresearch/dinov2, dinov2/models/vision_transformer.py and dinov2/train/ssl_meta_arch.py. The released backbones are
# bare state dicts; `teacher_checkpoint.pth` of a training run is `{teacher}` with the heads, and the trainer's own file `{model}`
# with the names of student, teacher and losses.
DINOV2 = Layout(
    name="dinov2",
    branches=("teacher",),
    licence="Apache-2.0",  # of the authors' repository
    marks=({"mask_token", "pos_embed", "patch_embed.proj.weight"},),
    specialises=("timm",),
    keys=_KEYS,
    steps=(_positions_like_timm,),
)
# `Dinov2Model` and `Dinov2WithRegistersModel` (transformers, convert_dinov2_to_hf.py and its sibling).
HUGGINGFACE_DINOV2 = Layout(
    name="huggingface_dinov2",
    licence="Apache-2.0",  # of DINOv2's repository
    marks=tuple(
        {"embeddings.patch_embeddings.projection.weight", f"{layer}0.layer_scale1.lambda1"} for layer in HUGGINGFACE_LAYERS
    ),
    keys=HUGGINGFACE_KEYS,
    steps=(join_qkv, _positions_like_timm),
    heads=config_heads,
)
LAYOUTS = (DINOV2, HUGGINGFACE_DINOV2)
