"""The conversion command: its report, and its message for each mistake."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from backbones.build import build_backbone
from backbones.file import load_backbone
from backbones.spec import ViTSpec
from common.files import file_sha256
from tests.conftest import RunMain
from tools.convert_checkpoint import main

SPEC = ViTSpec(embed_dim=64, depth=1, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({**build_backbone(SPEC).state_dict(), "head.weight": torch.ones(3, 64), "head.bias": torch.ones(3)}, path)
    return path


def test_report_and_file(checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    output, written = tmp_path / "model.safetensors", tmp_path / "reports" / "model.json"
    facts = json.loads(run_main(main, [checkpoint, output, "--json"]).output())
    assert (facts["format"], facts["tensors_dropped_by_rule"], facts["tensors_left_over"]) == ("timm", {"head.*": 2}, 0)
    assert facts["parameters"] == sum(tensor.numel() for tensor in build_backbone(SPEC).state_dict().values())
    assert load_backbone(output).spec == SPEC
    assert "architecture" in run_main(main, [checkpoint, "--json", written]).output()
    assert json.loads(written.read_text())["format"] == "timm"


def test_readable_report_and_check_write_nothing(checkpoint: Path, run_main: RunMain) -> None:
    image = checkpoint.with_name("image.png")
    Image.effect_noise((80, 64), 60).save(image)
    report = run_main(main, [checkpoint, "--check", image]).output()
    assert "dropped on purpose: 2: 2 by head.*" in report
    assert f"sha256 of checkpoint: {file_sha256(checkpoint)}" in report
    assert "warning: 3 of 3 normalisation layers" in report
    assert {path.name for path in checkpoint.parent.iterdir()} == {checkpoint.name, image.name}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_to_another_layout_and_back(checkpoint: Path, tmp_path: Path, suffix: str, run_main: RunMain) -> None:
    backbone, exported, again = tmp_path / "a.safetensors", tmp_path / f"b{suffix}", tmp_path / "c.safetensors"
    for arguments in ([checkpoint, backbone], [backbone, exported, "--to", "dino"], [exported, again]):
        run_main(main, arguments).output()
    assert "is a backbone file already" in run_main(main, [backbone, tmp_path / "d.safetensors"]).mistake()
    weights, found = (load_backbone(path).state_dict() for path in (backbone, again))
    assert found.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())


def test_mistakes_are_one_line(checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    output, cut = tmp_path / "out.safetensors", tmp_path / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:2000])
    for arguments, message in (
        ((tmp_path / "absent.pth", output), "absent.pth"),
        ((cut, output), "cut.pth"),
        ((checkpoint, tmp_path / "out.pth"), ".safetensors"),
        ((checkpoint, output, "--format", "selfpatch"), "selfpatch"),
        ((checkpoint, output, "--branch", "student"), "student"),
        ((checkpoint, output, "--heads", "3"), "--heads"),
        ((checkpoint, output, "--to", "selfpatch"), "class_token=False"),
        ((checkpoint, tmp_path / "out.onnx", "--to", "timm"), ".onnx"),
        ((checkpoint, output, "--to", "mae"), "mae"),
        ((checkpoint, checkpoint, "--to", "timm"), "checkpoint itself"),
        (("--json", checkpoint, output), "must end in .json"),
        ((checkpoint, output, "--check", tmp_path / "no.png"), "no.png"),
        ((checkpoint, "/proc/nowhere/out.safetensors"), "/proc/nowhere"),
    ):
        assert message in run_main(main, arguments).mistake()
        assert not output.exists()
