"""A backbone file of a toy ViT."""

from pathlib import Path

import pytest

from backbones.spec import ViTSpec
from tests.toy import write_toy_backbone


@pytest.fixture(scope="session")
def toy_spec() -> ViTSpec:
    """With everything that DINO's published file has and SelfPatch's has not: CLS token and final norm."""
    return ViTSpec(embed_dim=24, depth=4, num_heads=3, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory, toy_spec: ViTSpec) -> Path:
    return write_toy_backbone(tmp_path_factory.mktemp("backbones"), toy_spec)
