"""Hugging Face's `ViTModel`, and what its other ViTs share with it."""

from tests.layouts.base import VIT, Made, head, prefixed, split_qkv, substituted, weights_of

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


def make() -> dict[str, Made]:
    vit = weights_of(VIT)
    bare = substituted(split_qkv(vit, huggingface_attention), *HUGGINGFACE_VIT)
    return {
        "huggingface_vit": Made("huggingface_vit", prefixed("vit.", bare) | head("", "classifier.weight"), VIT, vit),
        "huggingface_vit_bare": Made("huggingface_vit", bare | head("", "pooler.dense.weight"), VIT, vit),
    }
