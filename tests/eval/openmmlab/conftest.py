"""A backbone file of a toy ViT."""

from pathlib import Path

import pytest
import torch

import eval.openmmlab  # noqa: F401 - before any test imports mmdet
from backbones.build import build_backbone
from backbones.file import Source, write_backbone_file
from backbones.spec import ViTSpec

SOURCE = Source(format="timm", branch="none", file_name="toy.pth", sha256="0" * 64, epoch=-1)


@pytest.fixture(scope="session")
def toy_spec() -> ViTSpec:
    """With everything that DINO's published file has and SelfPatch's has not: CLS token and final norm."""
    return ViTSpec(embed_dim=24, depth=4, num_heads=3, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory, toy_spec: ViTSpec) -> Path:
    path = tmp_path_factory.mktemp("backbones") / "toy.safetensors"
    torch.manual_seed(0)
    write_backbone_file(path, toy_spec, SOURCE, build_backbone(toy_spec).state_dict())
    return path
