"""A backbone's name as papers write it, from the spec in a result."""

from collections.abc import Mapping
from typing import Any

_VIT_SIZES = {(192, 12): "Ti", (384, 12): "S", (768, 12): "B", (1024, 24): "L"}
_VIT_HEAD_DIM = 64
_DINOV3_SIZES = {**_VIT_SIZES, (1280, 32): "H", (4096, 40): "7B"}
_RESNET_DEPTHS = {(3, 4, 6, 3): "R50", (3, 4, 23, 3): "R101", (3, 8, 36, 3): "R152"}
_SWIN_SIZES = {(96, (2, 2, 6, 2)): "Swin-T", (96, (2, 2, 18, 2)): "Swin-S", (128, (2, 2, 18, 2)): "Swin-B"}


def architecture_name(spec: Mapping[str, Any]) -> str:
    """Such as `ViT-S/16`; a ViT whose number of heads is not the usual one says so, since its weights alone do not.

    Args:
        spec: `backbones.spec.spec_to_dict` of a spec, as results hold it.

    Raises:
        KeyError: If a field is missing.
        ValueError: If the family is unknown.
    """
    match spec["family"]:
        case "vit":
            return _vit_name(spec["embed_dim"], spec["depth"], spec["num_heads"], spec["patch_size"])
        case "dinov3":
            return _dinov3_name(spec["embed_dim"], spec["depth"], spec["patch_size"], gated=spec["mlp"] == "swiglu")
        case "resnet":
            layers = tuple(spec["layers"])
            return _RESNET_DEPTHS.get(layers, f"ResNet {'-'.join(map(str, layers))}")
        case "swin":
            depths = tuple(spec["depths"])
            unnamed = f"Swin {'-'.join(map(str, depths))}, {spec['embed_dim']} wide"
            return _SWIN_SIZES.get((spec["embed_dim"], depths), unnamed)
        case family:
            raise ValueError(f"unknown backbone family {family!r}")


def _vit_name(embed_dim: int, depth: int, num_heads: int, patch_size: int) -> str:
    size = _VIT_SIZES.get((embed_dim, depth))
    name = f"ViT-{size}/{patch_size}" if size else f"ViT/{patch_size}, {embed_dim} wide, {depth} deep"
    return name if num_heads * _VIT_HEAD_DIM == embed_dim else f"{name}, {num_heads} heads"


def _dinov3_name(embed_dim: int, depth: int, patch_size: int, gated: bool) -> str:
    """A plus marks the gated MLP, except where a size has no other."""
    size = _DINOV3_SIZES.get((embed_dim, depth))
    plus = "+" if gated and size != "7B" else ""
    return f"ViT-{size}{plus}/{patch_size}" if size else f"DINOv3 ViT/{patch_size}, {embed_dim} wide, {depth} deep"
