"""The conversion command: its report, and one line for each mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import load_backbone
from backbones.spec import ViTSpec
from tests.conftest import RunMain
from tools.convert_checkpoint import main

SPEC = ViTSpec(embed_dim=64, depth=1, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({**build_backbone(SPEC).state_dict(), "head.weight": torch.ones(3, 64), "head.bias": torch.ones(3)}, path)
    return path


def test_report_and_file(checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    output = tmp_path / "model.safetensors"
    finished = run_main(main, [checkpoint, output, "--json"])
    assert finished.status == 0, finished.stderr
    facts = json.loads(finished.stdout)
    assert (facts["format"], facts["tensors_dropped_by_rule"], facts["tensors_left_over"]) == ("timm", {"head.*": 2}, 0)
    assert facts["parameters"] == sum(tensor.numel() for tensor in build_backbone(SPEC).state_dict().values())
    assert load_backbone(output).spec == SPEC


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb-went-off"),))


def test_mistakes_are_one_line(checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    output = tmp_path / "out.safetensors"
    cut = tmp_path / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:2000])
    bomb = tmp_path / "bomb.pth"
    torch.save({"model": _Bomb()}, bomb)
    for arguments, message in (
        ((tmp_path / "absent.pth", output), "absent.pth"),
        ((cut, output), "cut.pth"),
        ((bomb, output), "allow-list"),
        ((checkpoint, tmp_path / "out.pth"), ".safetensors"),
        ((checkpoint, output, "--format", "selfpatch"), "selfpatch"),
        ((checkpoint, output, "--branch", "student"), "student"),
        ((checkpoint, output, "--heads", "3"), "--heads"),
        ((checkpoint, "/proc/nowhere/out.safetensors"), "/proc/nowhere"),
    ):
        finished = run_main(main, arguments)
        assert finished.status == 2, finished
        assert len(finished.stderr.splitlines()) == 1, finished.stderr
        assert message in finished.stderr
        assert not output.exists()
    assert not Path("bomb-went-off").exists()
