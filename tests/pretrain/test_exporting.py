"""Both networks of a run as backbone files; which of them evaluation takes if not told."""

from pathlib import Path

import pytest
import torch

from backbones.convert import convert_checkpoint
from backbones.file import read_backbone_file
from common.files import file_sha256
from pretrain.config import parse_run
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import tiny_options
from tools.convert_checkpoint import main as convert


def run(images: Path, output: Path, method: str, **options: object) -> Path:
    recipe = output.parent / f"{method}.yaml"
    recipe.write_text(f"method: {method}\n")
    return pretrain(parse_run([str(recipe), *tiny_options(images, output, method, **options)]))


@pytest.mark.parametrize("method", ["selfpatch", "moby"])
def test_export_writes_both_at_the_end(image_folder: Path, tmp_path: Path, method: str) -> None:
    checkpoint = run(image_folder, tmp_path / "run", method, train__export=True)
    content = torch.load(checkpoint, weights_only=True)
    for branch in ("teacher", "student"):
        exported = read_backbone_file(tmp_path / "run" / f"backbone_{branch}.safetensors")
        assert (exported.source.branch, exported.source.sha256) == (branch, file_sha256(checkpoint))
        assert exported.source.epoch == 2
        assert len(exported.state_dict) > 10
        for name, value in exported.state_dict.items():
            assert torch.equal(value, content[branch][f"backbone.{name}"]), name


def test_a_finished_run_can_be_exported_afterwards(image_folder: Path, tmp_path: Path) -> None:
    run(image_folder, tmp_path / "run", "dino")
    assert not list(tmp_path.rglob("*.safetensors"))
    run(image_folder, tmp_path / "run", "dino", train__export=True)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("method", "default"),
    [
        ("dino", "teacher"),
        ("selfpatch", "teacher"),
        ("patch_matching", "teacher"),
        ("moby", "student"),
        ("moby_selfpatch", "student"),
    ],
)
def test_the_default_is_the_network_that_the_method_evaluates(
    image_folder: Path, tmp_path: Path, run_main: RunMain, method: str, default: str
) -> None:
    checkpoint = run(image_folder, tmp_path / "run", method)
    assert convert_checkpoint(checkpoint).branch == default
    for branch in ("student", "teacher"):
        output = tmp_path / f"{branch}.safetensors"
        assert run_main(convert, [checkpoint, output, "--branch", branch]).status == 0
        assert read_backbone_file(output).source.branch == branch
