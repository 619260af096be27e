"""A backbone file for the tasks; each folder says what kind of network is in it."""

from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import Source, write_backbone_file
from backbones.spec import ViTSpec

SOURCE = Source(format="timm", branch="none", file_name="toy.pth", sha256="0" * 64, epoch=-1)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory, toy_spec: ViTSpec) -> Path:
    path = tmp_path_factory.mktemp("backbones") / "toy.safetensors"
    torch.manual_seed(0)
    write_backbone_file(path, toy_spec, SOURCE, build_backbone(toy_spec).state_dict())
    return path
