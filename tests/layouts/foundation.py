"""Hugging Face's ViTs, and DINOv2's and DINOv3's checkpoints: the authors', Hugging Face's, timm's."""

from dataclasses import replace

import torch

from backbones.spec import DINOv3Spec
from tests.layouts.base import DINOV2, REGISTERS, VIT, Made, Weights, head, prefixed, split_qkv, substituted, weights_of

HUGGINGFACE = (
    (r"^cls_token", "embeddings.cls_token"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^norm\.", "layernorm."),
)
HUGGINGFACE_VIT = (
    *HUGGINGFACE,
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
)


def huggingface_attention(block: str) -> str:
    return f"encoder.layer.{block}.attention.attention."


def make_huggingface() -> dict[str, Made]:
    vit = weights_of(VIT)
    bare = substituted(split_qkv(vit, huggingface_attention), *HUGGINGFACE_VIT)
    return {
        "huggingface_vit": Made("huggingface_vit", prefixed("vit.", bare) | head("", "classifier.weight"), VIT, vit),
        "huggingface_vit_bare": Made("huggingface_vit", bare | head("", "pooler.dense.weight"), VIT, vit),
    }


HUGGINGFACE_DINOV2 = (
    *HUGGINGFACE,
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layer.\1.norm\2."),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
)
MLP = (r"^blocks\.(\d+)\.mlp\.fc(\d)\.", r"encoder.layer.\1.mlp.fc\2.")
GATED_MLP = (
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.mlp.weights_in."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.mlp.weights_out."),
)


def with_class_position(weights: Weights) -> Weights:
    """DINOv2's own: the positions begin with one for CLS, here 0.25 everywhere, which timm's CLS token contains."""
    position = torch.full_like(weights["cls_token"], 0.25)
    return {
        **weights,
        "cls_token": weights["cls_token"] - position,
        "pos_embed": torch.cat([position, weights["pos_embed"]], dim=1),
    }


def make_dinov2() -> dict[str, Made]:
    dinov2, registers = weights_of(DINOV2), weights_of(REGISTERS)
    own = {**dinov2, "mask_token": torch.zeros(1, 64)}
    own_registers = substituted(
        with_class_position(registers),
        (r"^reg_token", "register_tokens"),
        (r"\.fc1\.", ".w12."),
        (r"\.fc2\.", ".w3."),
    ) | {"mask_token": torch.zeros(1, 64)}
    chunked = substituted(own, (r"^blocks\.(\d+)\.", r"blocks.0.\1."))
    training = {"teacher": prefixed("backbone.", chunked) | head("dino_head.", "x")}
    hf = substituted(split_qkv(dinov2, huggingface_attention), *HUGGINGFACE_DINOV2, MLP)
    hf_registers = substituted(
        split_qkv(with_class_position(registers), huggingface_attention), *HUGGINGFACE_DINOV2, *GATED_MLP
    )
    return {
        "dinov2": Made("dinov2", own, DINOV2, dinov2),
        "dinov2_registers": Made("dinov2", own_registers, REGISTERS, registers),
        "dinov2_training": Made("dinov2", training, DINOV2, dinov2),
        "huggingface_dinov2": Made("huggingface_dinov2", hf | head("embeddings.", "mask_token"), DINOV2, dinov2),
        "huggingface_registers": Made("huggingface_dinov2", hf_registers, REGISTERS, registers),
    }


DINOV3 = DINOv3Spec(embed_dim=128, depth=2, num_heads=2, patch_size=16, hidden_dim=192, register_tokens=3)
GATED = replace(DINOV3, mlp="swiglu", query_value_bias=False)
DINOV3_OWN = (
    (r"^reg_token", "storage_tokens"),
    (r"^rope\.periods", "rope_embed.periods"),
    (r"\.gamma_(\d)$", r".ls\1.gamma"),
    (r"\.fc1_g\.", ".w1."),
    (r"\.fc1_x\.", ".w2."),
)
DINOV3_GATED = (*DINOV3_OWN, (r"\.fc2\.", ".w3."))
HUGGINGFACE_DINOV3 = (
    (r"^(cls_token)", r"embeddings.\1"),
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
    (r"^blocks\.(\d+)\.norm", r"layer.\1.norm"),
    (r"^blocks\.(\d+)\.attn\.([qv])_bias", r"layer.\1.attention.\2_proj.bias"),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"layer.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.gamma_(\d)", r"layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.mlp\.fc1_g\.", r"layer.\1.mlp.gate_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc1(_x)?\.", r"layer.\1.mlp.up_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layer.\1.mlp.down_proj."),
)


def joint_bias(weights: Weights) -> Weights:
    """The authors' bias of queries, keys and values with its mask; the keys' part, which the mask hides, is not zero."""
    joined = {}
    for name, tensor in weights.items():
        if name.endswith("q_bias"):
            prefix = name.removesuffix("q_bias")
            hidden = torch.full_like(tensor, 7.0)
            joined[f"{prefix}qkv.bias"] = torch.cat([tensor, hidden, weights[f"{prefix}v_bias"]])
            joined[f"{prefix}qkv.bias_mask"] = torch.cat([torch.ones_like(tensor), 0 * hidden, torch.ones_like(tensor)])
        elif not name.endswith("v_bias"):
            joined[name] = tensor
    return joined


def without_periods(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name != "rope.periods"}


def make_dinov3() -> dict[str, Made]:
    plain, gated = weights_of(DINOV3), weights_of(GATED)
    # The released files hold periods that were rounded.
    rounded = {**plain, "rope.periods": plain["rope.periods"].bfloat16().float()}
    mask_token = {"mask_token": torch.zeros(1, 128)}
    own = substituted(joint_bias(rounded), *DINOV3_OWN) | mask_token
    own_gated = substituted(gated, *DINOV3_GATED) | mask_token | head("local_cls_norm.", "weight", "bias")
    training = {"teacher": prefixed("backbone.", own) | head("", "dino_head.x", "ibot_head.x")}
    hf = _huggingface(plain) | head("embeddings.", "mask_token")
    in_memory = substituted(_huggingface(gated), (r"^layer\.", "model.layer."))
    return {
        "dinov3": Made("dinov3", own, DINOV3, rounded),
        "dinov3_gated": Made("dinov3", own_gated, GATED, gated),
        "dinov3_training": Made("dinov3", training, DINOV3, rounded),
        "huggingface_dinov3": Made("huggingface_dinov3", hf, DINOV3, plain),
        "huggingface_dinov3_gated": Made("huggingface_dinov3", in_memory, GATED, gated),
        "timm_dinov3": Made("timm_dinov3", without_periods(plain) | head("", "head.weight"), DINOV3, plain),
        "timm_dinov3_gated": Made("timm_dinov3", {"state_dict": without_periods(gated)}, GATED, gated),
    }


def _huggingface(weights: Weights) -> Weights:
    split = split_qkv(without_periods(weights), lambda block: f"layer.{block}.attention.")
    return substituted(split, *HUGGINGFACE_DINOV3)
