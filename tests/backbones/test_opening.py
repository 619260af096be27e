"""A backbone file states its own heads; it must not be read as a bare state dict."""

from pathlib import Path

import pytest

from backbones.build import build_backbone
from backbones.convert import open_backbone
from backbones.file import Source, is_backbone_file, write_backbone_file
from backbones.spec import ViTSpec

# 64 channels per head would make one head of it.
SPEC = ViTSpec(embed_dim=64, depth=1, num_heads=4, patch_size=16, image_size=64, class_token=True, final_norm=True)
SOURCE = Source(format="moco_v3", branch="base_encoder", file_name="vit-s-300ep.pth.tar", sha256="0" * 64, epoch=300)


def test_backbone_file(tmp_path: Path) -> None:
    path = tmp_path / "moco.safetensors"
    write_backbone_file(path, SPEC, SOURCE, build_backbone(SPEC).state_dict())
    assert is_backbone_file(path)
    opened = open_backbone(path)
    assert (opened.spec, opened.format, opened.branch, opened.epoch) == (SPEC, "moco_v3", "base_encoder", 300)
    with pytest.raises(ValueError, match=r"moco\.safetensors: is a backbone file already"):
        open_backbone(path, num_heads=1)
    with pytest.raises(ValueError, match="leave these options out"):
        open_backbone(path, format_name="timm")


def test_damaged_backbone_file_is_not_taken_for_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "moco.safetensors"
    write_backbone_file(path, SPEC, SOURCE, build_backbone(SPEC).state_dict())
    path.write_bytes(path.read_bytes().replace(rb"\"num_heads\": 4", rb"\"num_heats\": 4"))
    assert is_backbone_file(path)
    with pytest.raises(ValueError, match="num_heats"):
        open_backbone(path)


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_anything_else_is_no_backbone_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert not is_backbone_file(path)
