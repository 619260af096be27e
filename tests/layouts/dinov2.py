"""DINOv2's checkpoints, the authors' and Hugging Face's."""

import torch

from tests.layouts.base import DINOV2, REGISTERS, Made, Weights, head, prefixed, split_qkv, substituted, weights_of
from tests.layouts.huggingface import HUGGINGFACE, huggingface_attention

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


def make() -> dict[str, Made]:
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
