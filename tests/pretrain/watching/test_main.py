"""`python -m pretrain.watching` on every kind of checkpoint."""

from pathlib import Path

import pytest
import torch

from pretrain.networks import build_networks
from pretrain.state import run_settings, save_checkpoint
from pretrain.watching.__main__ import main
from pretrain.watching.opening import open_subject
from pretrain.watching.subject import subject_of
from tests.conftest import RunMain
from tests.pretrain.conftest import tiny_config


def checkpoint_of(method: str, folder: Path) -> Path:
    config = tiny_config(method)
    networks = build_networks(config, torch.device("cpu"))
    path = folder / f"{method}.pth"
    save_checkpoint(path, run_settings(config, []), networks, 1, 1)
    return path


@pytest.mark.parametrize(
    ("method", "own"), [("selfpatch", {"positives"}), ("moby_selfpatch", {"positives"}), ("patch_matching", {"matches"})]
)
def test_pictures_of_our_checkpoints(image_folder: Path, tmp_path: Path, run_main: RunMain, method: str, own: set[str]) -> None:
    path = checkpoint_of(method, tmp_path)
    options = ["--checkpoint", path, "--images", image_folder, "--output", tmp_path / "out", "--num-images", 1]
    finished = run_main(main, options)
    assert finished.status == 0, finished.stderr
    assert {picture.stem for picture in (tmp_path / "out").iterdir()} == {"attention", "components", *own}


@torch.no_grad()
def test_the_subject_is_the_one_that_was_trained(tmp_path: Path) -> None:
    config = tiny_config("selfpatch", selfpatch__k=2, selfpatch__border="clamp")
    networks = build_networks(config, torch.device("cpu"))
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, run_settings(config, []), networks, 1, 1)
    opened, trained = open_subject(path), subject_of(networks.teacher, config)
    assert (opened.size, opened.selfpatch) == (trained.size, trained.selfpatch)
    images = torch.randn(1, 3, 32, 32)
    patches = trained.backbone.eval().forward_tokens(images).patches
    torch.testing.assert_close(opened.backbone.eval().forward_tokens(images).patches, patches)
    assert opened.aggregation is not None
    assert trained.aggregation is not None
    torch.testing.assert_close(opened.aggregation.image_cls(patches), trained.aggregation.image_cls(patches))


@pytest.mark.parametrize(("name", "positives"), [("selfpatch_full", True), ("moby_swin_tiny", False), ("dino_full", False)])
def test_published_layouts(golden_dir: Path, name: str, positives: bool) -> None:
    subject = open_subject(golden_dir / "formats" / f"{name}.pth")
    assert (subject.selfpatch is not None) == positives
    assert subject.aggregation is None
    assert subject.size % subject.stride == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "/nowhere.pth"], "/nowhere.pth: no such checkpoint"),
        (["--images", "/nowhere"], "images: /nowhere is not a folder"),
        (["--num_images", "0"], "num_images=0"),
    ],
)
def test_mistakes_are_one_line(image_folder: Path, tmp_path: Path, run_main: RunMain, options: list[str], message: str) -> None:
    usual = {
        "--checkpoint": str(checkpoint_of("dino", tmp_path)),
        "--images": str(image_folder),
        "--output": str(tmp_path / "out"),
    }
    usual |= dict([options])
    finished = run_main(main, [token for pair in usual.items() for token in pair])
    assert finished.status == 2
    assert len(finished.stderr.splitlines()) == 1
    assert message in finished.stderr
