from typing import Any

import pytest

from tables.architecture import architecture_name


def _vit(embed_dim: int, depth: int, num_heads: int, patch_size: int) -> dict[str, Any]:
    return {"family": "vit", "embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "patch_size": patch_size}


def _dinov3(embed_dim: int, depth: int, mlp: str) -> dict[str, Any]:
    return {"family": "dinov3", "embed_dim": embed_dim, "depth": depth, "patch_size": 16, "mlp": mlp}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (_vit(192, 12, 3, 8), "ViT-Ti/8"),
        (_vit(384, 12, 6, 16), "ViT-S/16"),
        (_vit(384, 12, 8, 16), "ViT-S/16, 8 heads"),
        (_vit(768, 12, 12, 16), "ViT-B/16"),
        (_vit(96, 4, 3, 16), "ViT/16, 96 wide, 4 deep, 3 heads"),
        (_dinov3(384, 12, "gelu"), "ViT-S/16"),
        (_dinov3(384, 12, "swiglu"), "ViT-S+/16"),
        (_dinov3(1280, 32, "swiglu"), "ViT-H+/16"),
        (_dinov3(4096, 40, "swiglu"), "ViT-7B/16"),
        (_dinov3(128, 2, "gelu"), "DINOv3 ViT/16, 128 wide, 2 deep"),
        ({"family": "resnet", "layers": [3, 4, 6, 3]}, "R50"),
        ({"family": "resnet", "layers": [1, 1, 1, 1]}, "ResNet 1-1-1-1"),
        ({"family": "swin", "embed_dim": 96, "depths": [2, 2, 6, 2]}, "Swin-T"),
        ({"family": "swin", "embed_dim": 32, "depths": [1, 1]}, "Swin 1-1, 32 wide"),
    ],
)
def test_names(spec: dict[str, Any], name: str) -> None:
    assert architecture_name(spec) == name


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="'mamba'"):
        architecture_name({"family": "mamba"})
