"""DINOv3's checkpoints: the authors', Hugging Face's, timm's."""

import torch

from backbones.spec import DINOv3Spec
from tests.layouts.base import Made, Weights, head, prefixed, split_qkv, substituted, weights_of

DINOV3 = DINOv3Spec(embed_dim=128, depth=2, num_heads=2, patch_size=16, hidden_dim=192, register_tokens=3)
GATED = DINOv3Spec(
    embed_dim=128, depth=2, num_heads=2, patch_size=16, hidden_dim=192, register_tokens=3, mlp="swiglu", query_value_bias=False
)
OWN = (
    (r"^reg_token", "storage_tokens"),
    (r"^rope\.periods", "rope_embed.periods"),
    (r"\.gamma_(\d)$", r".ls\1.gamma"),
    (r"\.fc1_g\.", ".w1."),
    (r"\.fc1_x\.", ".w2."),
)
GATED_OWN = (*OWN, (r"\.fc2\.", ".w3."))
HUGGINGFACE = (
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


def make() -> dict[str, Made]:
    plain, gated = weights_of(DINOV3), weights_of(GATED)
    # The released files hold periods that were rounded.
    rounded = {**plain, "rope.periods": plain["rope.periods"].bfloat16().float()}
    mask_token = {"mask_token": torch.zeros(1, 128)}
    own = substituted(joint_bias(rounded), *OWN) | mask_token
    own_gated = substituted(gated, *GATED_OWN) | mask_token | head("local_cls_norm.", "weight", "bias")
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
    return substituted(split, *HUGGINGFACE)
