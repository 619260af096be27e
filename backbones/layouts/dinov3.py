"""DINOv3's ViTs, in the authors' files, in Hugging Face's and in timm's.

The authors' files hold the rotary periods, which show the heads and are taken as they are. Hugging Face and timm compute them.

A LayerNorm epsilon is not stored: it is 1e-5, that of all released models (`layernormbf16`; the configuration's own default is
1e-6).
"""

import re

from backbones.layouts.base import Layout
from backbones.layouts.dinov2 import config_heads
from backbones.layouts.keys import KeyTable, LayoutError, Weights, join_qkv, nested, same
from backbones.spec import DINOV3_PERIODS

_LICENCE = "DINOv3 License"  # of the authors' repository
_BLOCK: KeyTable = {
    # timm's names
    **same("norm1.*", "attn.qkv.weight", "attn.q_bias", "attn.v_bias", "attn.proj.*", "gamma_1"),
    **same("norm2.*", "mlp.fc1.*", "mlp.fc1_g.*", "mlp.fc1_x.*", "mlp.fc2.*", "gamma_2"),
    # the authors', whose joint bias is split below, by its mask
    **same("attn.qkv.bias", "attn.qkv.bias_mask"),
    "ls1.gamma": "gamma_1",
    "mlp.w1.*": "mlp.fc1_g.*",
    "mlp.w2.*": "mlp.fc1_x.*",
    "mlp.w3.*": "mlp.fc2.*",
    "ls2.gamma": "gamma_2",
    # Hugging Face's
    "attention.q_proj.weight": "attn.query.weight",
    "attention.k_proj.weight": "attn.key.weight",
    "attention.v_proj.weight": "attn.value.weight",
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj.*": "attn.proj.*",
    "layer_scale1.lambda1": "gamma_1",
    "mlp.gate_proj.*": "mlp.fc1_g.*",
    "mlp.up_proj.*": "mlp.fc1.*",  # in the gated MLP: fc1_x, see below
    "mlp.down_proj.*": "mlp.fc2.*",
    "layer_scale2.lambda1": "gamma_2",
}
_KEYS: KeyTable = {
    **same("cls_token", "reg_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.*"),
    **nested("blocks.{i}.", "blocks.{i}.", _BLOCK),
    "storage_tokens": "reg_token",
    "mask_token": None,  # stands for masked patches in training only
    "rope_embed.periods": DINOV3_PERIODS,
    "local_cls_norm.*": None,  # of local crops, in training only
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.mask_token": None,
    "embeddings.patch_embeddings.*": "patch_embed.proj.*",
    **nested("layer.{i}.", "blocks.{i}.", _BLOCK),
    **nested("model.layer.{i}.", "blocks.{i}.", _BLOCK),
}
"""All three namings: their names exclude each other."""


def _without_empty_registers(weights: Weights) -> Weights:
    """Hugging Face's networks hold an empty tensor where they have no registers."""
    return {name: tensor for name, tensor in weights.items() if name != "reg_token" or tensor.numel()}


def _name_gate(weights: Weights) -> Weights:
    """Name Hugging Face's `up_proj` after timm: the first layer of a plain MLP, and beside a gate the value."""
    if "blocks.0.mlp.fc1_g.weight" not in weights:
        return weights
    return {re.sub(r"\.mlp\.fc1\.", ".mlp.fc1_x.", name): tensor for name, tensor in weights.items()}


def _split_bias(state_dict: Weights) -> Weights:
    """Split the joint biases into timm's `q_bias` and `v_bias`; a mask must not let a bias of the keys through."""
    import torch

    split = {name: tensor for name, tensor in state_dict.items() if ".attn.qkv.bias" not in name}
    for block in dict.fromkeys(name.partition("qkv.bias")[0] for name in state_dict if ".attn.qkv.bias" in name):
        bias, mask = (state_dict.get(f"{block}qkv.{name}") for name in ("bias", "bias_mask"))
        if bias is None or mask is None or bias.ndim != 1 or len(bias) % 3 or mask.shape != bias.shape:
            raise LayoutError(f"{block}qkv.bias and its mask {block}qkv.bias_mask are missing or do not fit each other")
        if not torch.equal(mask.float(), torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(len(bias) // 3)):
            raise LayoutError(
                f"{block}qkv.bias_mask must be one for queries and values and zero for keys, which have no bias here"
            )
        query, _, value = bias.chunk(3)
        split |= {f"{block}q_bias": query.clone(), f"{block}v_bias": value.clone()}
    return split


_STEPS = (_without_empty_registers, join_qkv, _name_gate, _split_bias)  # each without effect on the other namings
# facebookresearch/dinov3 6876159a, dinov3/models/vision_transformer.py and dinov3/train/train.py. The released backbones are
# bare state dicts; `teacher_checkpoint.pth` of a training run is `{teacher}` with the heads.
DINOV3 = Layout(
    name="dinov3",
    branches=("teacher",),
    licence=_LICENCE,
    marks=({"rope_embed.periods", "patch_embed.proj.weight"},),
    keys=_KEYS,
    steps=_STEPS,
)
# `DINOv3ViTModel` (transformers, convert_dinov3_vit_to_hf.py and modeling_dinov3_vit.py): bare state dicts, as
# `model.safetensors`; transformers 5 calls `layer.` in memory `model.layer.`. The rotary periods are not stored but computed
# from the configuration's `rope_theta`, which is 100 in every published model.
_HUGGINGFACE_MARKS = {"embeddings.cls_token", "embeddings.patch_embeddings.weight"}
HUGGINGFACE_DINOV3 = Layout(
    name="huggingface_dinov3",
    licence=_LICENCE,
    marks=(
        _HUGGINGFACE_MARKS | {"layer.0.attention.q_proj.weight"},
        _HUGGINGFACE_MARKS | {"model.layer.0.attention.q_proj.weight"},
    ),
    keys=_KEYS,
    steps=_STEPS,
    heads=config_heads,
)
# timm, `eva.py`, `vit_*_dinov3*`: timm's names, and no rotary periods. timm's other `Eva` networks differ in how their
# positions rotate, which the weights do not show; none of them has a CLS token, registers and LayerScale and no stored
# positions.
TIMM_DINOV3 = Layout(
    name="timm_dinov3",
    licence=_LICENCE,
    marks=({"cls_token", "reg_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.gamma_1"},),
    keys=_KEYS,
    steps=_STEPS,
    drops=("head.*",),
)
LAYOUTS = (DINOV3, HUGGINGFACE_DINOV3, TIMM_DINOV3)
