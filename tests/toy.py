"""Backbone files for tests."""

from pathlib import Path

import torch

from backbones.build import build_backbone
from backbones.file import write_backbone_file
from backbones.layouts.base import Source
from backbones.spec import BackboneSpec

SOURCE = Source(format="timm", branch="none", file_name="toy.pth", sha256="0" * 64, epoch=-1)


def write_toy_backbone(folder: Path, spec: BackboneSpec) -> Path:
    """A backbone file with fresh weights."""
    path = folder / "toy.safetensors"
    torch.manual_seed(0)
    write_backbone_file(path, spec, SOURCE, build_backbone(spec).state_dict())
    return path
