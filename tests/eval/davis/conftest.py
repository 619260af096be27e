import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import eval.__main__
from backbones.spec import BackboneSpec, ResNetSpec, SwinSpec, ViTSpec
from eval.davis import explain, pictures, propagation, scores
from eval.davis.config import DavisConfig
from eval.propagation.masks import write_mask
from eval.propagation.videos import VideoSequence
from tests.conftest import Finished, RunMain
from tests.layouts import DINOV3
from tests.toy import write_toy_backbone

Run = Callable[..., Finished]

HEIGHT, WIDTH = 64, 96
FRAMES = 5
SEQUENCES = ("boat", "cart", "drone")

SPECS: dict[str, BackboneSpec] = {
    "vit": ViTSpec(embed_dim=32, depth=2, num_heads=2, patch_size=8, image_size=64, class_token=False, final_norm=False),
    "dinov3": DINOV3,
    "swin": SwinSpec(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4, image_size=64),
    "resnet": ResNetSpec(layers=(1, 1, 1, 1)),
}


def draw_sequence(root: Path, name: str, seed: int, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Two textured squares that drift over noise; every frame has its exact mask."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    textures = rng.integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    images, masks = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index in range(frames):
        shift = index % 10
        image, mask = ground.copy(), np.zeros((height, width), np.uint8)
        for number, (top, left) in enumerate(((8 + 2 * shift, 10 + 3 * shift), (30, 60 - 3 * shift))):
            image[top : top + 20, left : left + 20] = textures[number]
            mask[top : top + 20, left : left + 20] = number + 1
        cv2.imwrite(str(images / f"{index:05d}.jpg"), image)
        write_mask(masks / f"{index:05d}.png", mask)


def sequences_of(lengths: Sequence[int]) -> list[VideoSequence]:
    """Sequences without files."""
    common: dict[str, Any] = {"masks": (), "one_object": False, "size": (480, 854)}
    return [VideoSequence(name=f"s{index}", frames=(Path("0.jpg"),) * length, **common) for index, length in enumerate(lengths)]


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """A DAVIS folder with three short, small sequences."""
    root = tmp_path / "DAVIS"
    for seed, name in enumerate(SEQUENCES):
        draw_sequence(root, name, seed, frames=FRAMES + seed)
    lists = root / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(SEQUENCES) + "\n")
    return root


@pytest.fixture(scope="session")
def backbone_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Backbone files with random weights, one per family."""
    return {name: write_toy_backbone(tmp_path_factory.mktemp(name), spec) for name, spec in SPECS.items()}


@pytest.fixture
def config(davis: Path, backbone_files: dict[str, Path], tmp_path: Path) -> DavisConfig:
    """A run of a small ViT on three short sequences."""
    return DavisConfig(backbone=backbone_files["vit"], data=davis, output=tmp_path / "out", short_side=64, device="cpu", jobs=1)


@pytest.fixture
def predictions(davis: Path, tmp_path: Path) -> Path:
    """Each frame's prediction is the annotation of the frame before."""
    folder = tmp_path / "predictions"
    for name in SEQUENCES:
        paths = sorted((davis / "Annotations/480p" / name).glob("*.png"))
        (folder / name).mkdir(parents=True)
        for before, path in pairwise(paths):
            shutil.copy(before, folder / name / path.name)
    return folder


@pytest.fixture
def run(davis: Path, predictions: Path, backbone_files: dict[str, Path], tmp_path: Path, run_main: RunMain) -> Run:
    """Run a command on the toy data with further options; the later of two values counts."""
    output = ("--output", tmp_path / "out")
    model = (*output, "--backbone", backbone_files["vit"], "--short_side", 64, "--device", "cpu")
    vote = ("--output", tmp_path / "out.png", "--sequence", "boat", "--frame", 3, "--x", 20, "--y", 18)
    commands = {
        "task": (eval.__main__.main, ("davis", *model, "--data", davis, "--jobs", 1)),
        "propagation": (propagation.main, (*model, "--davis", davis)),
        "scores": (scores.main, (*output, "--annotations", davis, "--predictions", predictions, "--jobs", 1)),
        "pictures": (pictures.main, (*output, "--davis", davis)),
        "explain": (explain.main, (*model, "--davis", davis, *vote)),
    }

    def run(command: str, *options: object) -> Finished:
        main, given = commands[command]
        finished = run_main(main, [*given, *options])
        assert bool(finished.stderr) == bool(finished.status)
        return finished

    return run
